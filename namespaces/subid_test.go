package namespaces

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const subidText = `# comment
root:200000:65536
ada:100000:65536
1000:300000:1000
ada:400000:10
ada:bad:10
ada:1:0
ada:4294967295:2
adam:1:1
ada:5
:7:7
`

func TestParseSubIDs(t *testing.T) {
	got, err := parseSubIDs(strings.NewReader(subidText), []string{"ada", "1000"})
	want := []SubIDRange{{100000, 65536}, {300000, 1000}, {400000, 10}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := parseSubIDs(strings.NewReader(strings.Repeat("x", 1<<20)), []string{"x"}); err == nil {
		t.Error("an endless line is accepted")
	}
	if _, err := parseSubIDs(strings.NewReader(strings.Repeat("a:1:1\n", maxIDFile/6+1)), []string{"x"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a huge file: %v", err)
	}
}

func TestSubordinateIDFiles(t *testing.T) {
	dir := t.TempDir()
	uidFile, gidFile := filepath.Join(dir, "subuid"), filepath.Join(dir, "subgid")
	if _, err := subordinateIDs(uidFile, gidFile, "ada"); !errors.Is(err, ErrNoSubordinateIDs) {
		t.Errorf("no files: %v", err)
	}
	if err := os.WriteFile(uidFile, []byte(subidText), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := subordinateIDs(uidFile, gidFile, "ada")
	if !errors.Is(err, ErrNoSubordinateIDs) || !strings.Contains(err.Error(), gidFile) || !strings.Contains(err.Error(), "usermod --add-subuids") {
		t.Errorf("no subgid: %v", err)
	}
	if err := os.WriteFile(gidFile, []byte("ada:9:9"), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, err := subordinateIDs(uidFile, gidFile, "ada")
	if err != nil || len(ids.UID) != 2 || len(ids.GID) != 1 {
		t.Errorf("%v, %v", ids, err)
	}
}

func TestParsePasswd(t *testing.T) {
	const text = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/:/bin/sh\nbob:x:1000:1:::\n"
	for uid, want := range map[uint32]string{0: "root", 1000: "ada", 7: ""} {
		if got, err := parsePasswdName(strings.NewReader(text), uid); err != nil || got != want {
			t.Errorf("%d: %q, %v", uid, got, err)
		}
	}
}

func FuzzParseSubIDs(f *testing.F) {
	f.Add(subidText)
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseSubIDs(strings.NewReader(s), []string{"ada", "1000"})
		if err != nil {
			return
		}
		for _, r := range l {
			if r.Count == 0 || uint64(r.Start)+uint64(r.Count) > 1<<32-1 {
				t.Fatalf("range %v", r)
			}
		}
		if len(l) > 10 {
			l = l[:10] // chain is quadratic in the number of ranges
		}
		if m := chain(0, l, nil); len(m) > 0 {
			if err := validateIDMaps("map", m); err != nil {
				t.Fatal(err)
			}
		}
	})
}
