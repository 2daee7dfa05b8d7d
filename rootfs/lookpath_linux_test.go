package rootfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLookPath(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		at := func(p string) string { return filepath.Join(r.Name(), p) }
		for _, d := range []string{"bin", "usr", "usr/bin", "bin/dir", "wrk", "usr/local"} {
			mkdir(t, at(d))
		}
		add := func(p, data string, mode os.FileMode) {
			write(data)(t, at(p))
			if err := os.Chmod(at(p), mode); err != nil {
				t.Fatal(err)
			}
		}
		add("bin/sh", "binary", 0o755)
		add("usr/bin/tool", "no", 0o644)
		add("bin/tool", "yes", 0o755)
		add("bin/plain", "no", 0o644)
		add("bin/ok.sh", "#!/bin/sh -e\n", 0o755)
		add("bin/spaces.sh", "#!  \t/bin/sh\n", 0o700)
		add("bin/bad.sh", "#!/usr/bin/python9\n", 0o755)
		add("bin/crlf.sh", "#!/bin/sh\r\n", 0o755)
		add("bin/nest", "#!/bin/bad.sh\n", 0o755)
		add("bin/self", "#!/bin/self\n", 0o755)
		add("wrk/here", "x", 0o111)
		add("wrk/rel.sh", "#!here\n", 0o755)
		symlink(t, "/bin/sh", at("usr/bin/abs"))
		mkfifo(t, at("bin/fifo"))
		exe, err := os.ReadFile("/bin/true")
		if err != nil || !bytes.Contains(exe, []byte("ld-linux")) {
			t.Skip("no dynamic /bin/true here")
		}
		add("bin/true", string(exe), 0o755)
		const pathEnv = "/usr/bin:/bin:"
		for _, c := range []struct {
			command, want string
			err           error
			interp        string
		}{
			{command: "sh", want: "/bin/sh"},
			{command: "/bin/sh", want: "/bin/sh"},
			{command: "../bin/sh", want: "/wrk/../bin/sh"},
			{command: "./here", want: "/wrk/./here"},
			{command: "here", want: "/wrk/here"},
			{command: "abs", want: "/usr/bin/abs"},
			{command: "tool", want: "/bin/tool"},
			{command: "ok.sh", want: "/bin/ok.sh"},
			{command: "spaces.sh", want: "/bin/spaces.sh"},
			{command: "rel.sh", want: "/wrk/rel.sh"},
			{command: "", err: ErrCommandNotFound},
			{command: "none", err: ErrCommandNotFound},
			{command: "/bin/sh/x", err: ErrCommandNotFound},
			{command: "plain", err: ErrNotExecutable},
			{command: "fifo", err: ErrNotExecutable},
			{command: "dir", err: ErrIsDirectory},
			{command: "/bin", err: ErrIsDirectory},
			{command: "bad.sh", err: ErrNoInterpreter, interp: "/usr/bin/python9"},
			{command: "crlf.sh", err: ErrNoInterpreter, interp: "/bin/sh\r"},
			{command: "nest", err: ErrNoInterpreter, interp: "/usr/bin/python9"},
			{command: "self", err: unix.ELOOP, interp: "/bin/self"},
			{command: "true", err: ErrNoInterpreter, interp: "ld-linux"},
		} {
			got, err := LookPath(r, c.command, pathEnv, "wrk")
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q: got %q, %v; want %q, %v", c.command, got, err, c.want, c.err)
			}
			var ce *CommandError
			if err != nil && (!errors.As(err, &ce) || !strings.Contains(ce.Interpreter, c.interp)) {
				t.Errorf("%q: interpreter of %v, want %q", c.command, err, c.interp)
			}
		}
		if _, err := LookPath(r, "none", "", ""); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzInterpreter(f *testing.F) {
	if exe, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(exe[:min(len(exe), 4096)])
	}
	f.Add([]byte("#!/bin/sh\n"))
	f.Add([]byte("#! "))
	f.Fuzz(func(t *testing.T, data []byte) {
		head := data[:min(len(data), 256)]
		if s, ok := scriptInterpreter(head); ok && (s == "" || strings.ContainsAny(s, " \t\n\x00")) {
			t.Fatalf("interpreter %q", s)
		}
		if s := elfInterpreter(head, bytes.NewReader(data)); len(s) > maxELFInterp || strings.Contains(s, "\x00") {
			t.Fatalf("interpreter %q", s)
		}
	})
}
