package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const report = `[{"area":"system","name":"kernel","answer":"yes","detail":"6.1 amd64"},
	{"area":"security","name":"Landlock","answer":"yes","detail":"ABI 2"},{"area":"cgroups","name":"pids controller","answer":"no","reason":"why"},
	{"area":"container","name":"device rules","answer":"no"},{"area":"container","name":"start","answer":"yes","detail":"from start to end in 3 ms"}]`

func TestRender(t *testing.T) {
	var s store
	for where, text := range map[string]string{"6.1/amd64/v2/shell/user": report, "6.12/amd64/v2/systemd/root": strings.Replace(report, `"no","reason":"why"`, `"yes"`, 1)} {
		more, err := fromDoctor(where, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		s.add(more)
		s.add(more) // replaces itself
	}
	runs, err := parseStore([]byte("run\t6.1/amd64/v2/shell/user\tcgroups\t10\t1\t2\t2026-01-02\nrun\t6.1/amd64/v2/shell/user\trootfs\t5\t0\t0\t2026-01-01\n" +
		"run\t6.1/amd64/v2/shell/user\tcgroups\t11\t0\t2\t2026-01-03\n" +
		"run\t6.1/amd64/v2/shell/user\t.:^TestA\t1\t0\t0\t2026-01-01\nrun\t6.1/amd64/v2/shell/user\t.:^TestB\t2\t0\t3\t2026-01-01\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.add(runs)
	text := string(render(s))
	for _, want := range []string{"| A | 6.12 | amd64 | v2 | systemd | root | – | | | | |", "| B | 6.1 | amd64 | v2 | shell | user | 3 | 19 | 0 | 5 | 2026-01-03 |",
		"| | B |\n|---|---|\n| caisson | 3/0/3 * |\n| cgroups | 11/0/2 |\n| rootfs | 5/0/0 |\n",
		"| security: Landlock | ABI 2 | ABI 2 |\n| cgroups: pids controller | yes | no |\n| container: start | yes | yes |"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	whole, err := parseStore([]byte("run\t6.1/amd64/v2/shell/user\t.\t9\t0\t1\t2026-01-03\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.add(whole)
	if text := string(render(s)); !strings.Contains(text, "| caisson | 9/0/1 |\n") {
		t.Errorf("pieces stay although all was run:\n%s", text)
	}
	again, err := parseStore(s.format())
	if err != nil || !bytes.Equal(again.format(), s.format()) {
		t.Errorf("%v\n%s", err, again.format())
	}
}

func TestBadLines(t *testing.T) {
	for _, bad := range []string{"run\ta/b/c/d/e", "x\ta/b/c/d/e\t1", "run\ta/b/c/d\tp\t1\t2\t3\tdate", "run\ta/b/c/d/e\tp\t1\tmany\t3\tdate", "can\ta/b/c/d/e\tx\ta: b\tyes\t"} {
		if _, err := parseStore([]byte(bad + "\n")); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := replaceSection([]byte("no marks"), nil); err == nil {
		t.Error("a document without marks was accepted")
	}
}

// The document says what the store holds.
func TestDocumentIsUpToDate(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	s, err := readStore(filepath.Join(root, storeFile))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	text, err := replaceSection(doc, render(s))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, doc) {
		t.Error(document + " is not what the results say: go run ./internal/testutil/vm/matrix")
	}
}

func FuzzStore(f *testing.F) {
	f.Add([]byte("run\ta/b/c/d/e\tp\t1\t2\t3\tdate\ncan\ta/b/c/d/e\t1\ta: b\tyes\t\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStore(b); err == nil {
			render(s)
			if again, err := parseStore(s.format()); err != nil || len(again) != len(s) {
				t.Fatalf("%v: %q", err, s.format())
			}
		}
	})
}
