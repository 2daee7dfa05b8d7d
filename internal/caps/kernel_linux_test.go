package caps

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// status returns what /proc/thread-self/status shows for one of its sets.
func status(t *testing.T, field string) Set {
	t.Helper()
	f, err := os.Open("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), field+":\t"); ok {
			n, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return Set(n)
		}
	}
	t.Fatalf("no %s in status", field)
	return 0
}

func TestHeldAgreesWithProc(t *testing.T) {
	e, p, i, err := Held()
	if err != nil {
		t.Fatal(err)
	}
	if e != status(t, "CapEff") || p != status(t, "CapPrm") || i != status(t, "CapInh") {
		t.Error(e, p, i)
	}
}

func TestBoundingAgreesWithProc(t *testing.T) {
	got, err := Bounding()
	if err != nil {
		t.Fatal(err)
	}
	if want := status(t, "CapBnd"); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestLast(t *testing.T) {
	direct, err := readLast(lastFile)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Last(); err != nil || got != direct {
		t.Errorf("Last() = %v, %v; want %v", got, err, direct)
	}
	searched, err := searchLast()
	if err != nil || searched != direct {
		t.Errorf("search finds %v, %v; the file says %v", searched, err, direct)
	}
}

func TestLastWithoutProc(t *testing.T) {
	want, err := searchLast()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "words": "forty\n", "big": "64\n", "long": "40\n00000000000", "zero": "0"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readLast(path); err == nil {
			t.Errorf("%q was believed", text)
		}
		if got, err := last(path); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := last(filepath.Join(dir, "absent")); err != nil || got != want {
		t.Error(got, err)
	}
}
