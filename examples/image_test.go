//go:build linux

package examples_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/image"
)

// staticShell is a busybox that needs no libraries.
func staticShell(t *testing.T) []byte {
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"} {
		data, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		if out, _ := exec.Command("ldd", p).CombinedOutput(); bytes.Contains(out, []byte("not a dynamic")) {
			return data
		}
	}
	t.Skip("no static busybox on this machine: install the package busybox-static")
	return nil
}

// tarball makes an archive of files and, where the content is nil, directories.
func tarball(t *testing.T, names []string, content map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		h := &tar.Header{Name: n, Typeflag: tar.TypeDir, Mode: 0o755}
		if data, ok := content[n]; ok {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(data))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content[n]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// imageArchive writes an image as docker save does: two layers, of which the second deletes a file of the first.
func imageArchive(t *testing.T, c caller) string {
	t.Helper()
	layers := [][]byte{
		tarball(t, []string{"bin/", "bin/busybox", "bin/sh", "etc/", "etc/gone", "etc/stays", "etc/passwd"}, map[string][]byte{"bin/busybox": staticShell(t),
			"bin/sh": staticShell(t), "etc/gone": nil, "etc/stays": []byte("x"), "etc/passwd": []byte("web:x:0:0:web:/srv:/bin/sh\n")}),
		tarball(t, []string{"etc/.wh.gone", "etc/new"}, map[string][]byte{"etc/.wh.gone": nil, "etc/new": nil}),
	}
	config := map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{"Entrypoint": []string{"/bin/sh", "-c"},
		"Cmd": []string{"echo $GREETING from $PWD; cd /etc; echo *"}, "Env": []string{"GREETING=hello"}, "WorkingDir": "/made/up", "User": "web",
		"ExposedPorts": map[string]any{"80/tcp": map[string]any{}, "53/udp": map[string]any{}}}}
	var ids []string
	for _, l := range layers {
		ids = append(ids, fmt.Sprintf("sha256:%x", sha256.Sum256(l)))
	}
	config["rootfs"] = map[string]any{"type": "layers", "diff_ids": ids}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	data := tarball(t, []string{"c.json", "1/layer.tar", "2/layer.tar", "manifest.json"}, map[string][]byte{"c.json": text, "1/layer.tar": layers[0], "2/layer.tar": layers[1],
		"manifest.json": []byte(`[{"Config":"c.json","RepoTags":["greet:1"],"Layers":["1/layer.tar","2/layer.tar"]}]`)})
	path := filepath.Join(c.dir, "image.tar")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunImage(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		file := imageArchive(t, c)
		run := func(args ...string) result {
			return c.run(t, "run", append([]string{"-q", "-store", filepath.Join(c.dir, "store")}, args...)...)
		}
		run("-image", "archive:"+file).want(t, 0, `^hello from /made/up$`, `^new passwd stays$`)
		run("-image", "greet:1", "-e", "GREETING=hi", "-w", "/etc", "--", "echo $GREETING from $PWD; touch new2 && rm stays").want(t, 0, `^hi from /etc$`)
		run("-image", "greet:1", "--", "cd /; echo etc/*").want(t, 0, `^etc/new etc/passwd etc/stays$`) // changes went with their container
		run("-image", "127.0.0.1:1/nothing:1").wantErr(t, 125, `connection refused`)
		run("-image", "greet:1", "-writable").wantErr(t, 125, `-image goes with`)
	})
}

// TestRunImageDetached: a container of an image outlives its program, by itself and with one that starts it again, and leaves nothing.
func TestRunImageDetached(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		store := filepath.Join(c.dir, "store")
		c.run(t, "run", "-q", "-store", store, "-image", "archive:"+imageArchive(t, c)).want(t, 0, `^hello from /made/up$`)
		for id, args := range map[string][]string{"run-image": nil, "run-image-again": {"-restart", "on-failure:1", "-disk", "1M"}} {
			defer func() { c.run(t, "run", "-rm", id) }()
			log := filepath.Join(c.dir, id)
			c.run(t, "run", slices.Concat([]string{"-q", "-store", "store", "-image", "greet:1", "-d", "-id", id, "-log", log}, args, []string{"--", "cd /etc; echo run: *; touch /new; exit 4"})...).want(t, 0, "^"+id+"$")
			c.run(t, "run", "-wait", id).want(t, 4, `^$`)
			b, err := os.ReadFile(log)
			if n := strings.Count(string(b), "run: new passwd stays\n"); err != nil || n != 1+min(len(args), 1) {
				t.Errorf("%s: %d runs are in the log: %q, %v", id, n, b, err)
			}
			leases := func() int {
				names, err := os.ReadDir(filepath.Join(store, "leases"))
				if err != nil {
					t.Fatal(err)
				}
				return len(names)
			}
			if leases() != 1 {
				t.Errorf("%s: %d leases", id, leases())
			}
			c.run(t, "run", "-rm", id).want(t, 0, `^$`)
			if leases() != 0 {
				t.Errorf("%s: %d leases are left", id, leases())
			}
		}
		c.run(t, "run", "-d", "-q").wantErr(t, 125, `-detach needs a command`)
	})
}

// TestRunImageVolumes: what an image wants kept apart is, with what the image has there, as long as the container is there.
func TestRunImageVolumes(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, nil)
		owned := ""
		if c.root() {
			owned = "RUN chown 7:8 /data\n"
		}
		p.build("FROM base:1\nRUN mkdir -p /data/sub && echo seed >/data/f && chmod 750 /data\n"+owned+"VOLUME /data /extra/\n").want(t, 0, `^sha256:`)
		args := func(flags []string, line string) []string {
			return slices.Concat([]string{"-q", "-store", p.store, "-image", "out:1"}, flags, []string{"--", "sh", "-c", line})
		}
		run := func(line string, flags ...string) result { return c.run(t, "run", args(flags, line)...) }
		left := func() []os.DirEntry {
			entries, err := os.ReadDir(p.store + ".volumes")
			if err != nil {
				t.Fatal(err)
			}
			return entries
		}
		const writes = "(echo >/data/new) 2>/dev/null && (echo >/extra/new) && echo wrote || echo refused; (echo >/no) 2>/dev/null || echo no"
		owner := map[bool]string{true: `7 +8`, false: `0 +0`}[c.root()]
		run("cat /data/f; ls -nd /data; ls /data/sub; ls /data /extra; "+writes, "-read-only").want(t, 0, `^seed$`, `^drwxr-x--- +\S+ +`+owner+` `, `^wrote$`, `^no$`)
		run("cat /data/f; ls /data; ls /extra").want(t, 0, `^seed\nf\nsub$`)
		run(writes, "-read-only", "-image-volumes", "ignore").want(t, 0, `^refused\nno$`)
		run("ls /data; "+writes, "-read-only", "-image-volumes", "tmpfs").want(t, 0, `^wrote\nno$`)
		p.files(map[string]string{"mine/here": ""})
		run("ls /data; ls /data/x; "+writes, "-read-only", "-v", p.ctx+"/mine:/data:ro", "-tmpfs", "/extra").want(t, 0, `^here$`, `^refused$`)
		run("", "-image-volumes", "none").wantErr(t, 125, `none of anonymous, tmpfs and ignore`)
		run("no-such-command").want(t, 127)
		c.run(t, "run", "-q", "-store", p.store, "-image", "out:1", "--", "/no-such-command").want(t, 127)
		if l := left(); len(l) != 0 {
			t.Errorf("left: %v", l)
		}

		const id = "run-volumes"
		defer func() { c.run(t, "run", "-rm", id) }()
		log := filepath.Join(c.dir, "log")
		c.run(t, "run", args([]string{"-d", "-id", id, "-restart", "on-failure:1", "-log", log}, "cat /data/runs; echo again >>/data/runs; exit 3")...).want(t, 0, "^"+id+"$")
		c.run(t, "run", "-wait", id).want(t, 3)
		if b, err := os.ReadFile(log); err != nil || strings.Count(string(b), " again\n") != 1 {
			t.Errorf("the second run does not see what the first one wrote: %q, %v", b, err)
		}

		// A program that is killed leaves its volumes to the next one, which keeps those of the detached container.
		cmd := c.command(t, "run", args([]string{"-i"}, "echo ready; cat")...)
		var out lockedBuffer
		cmd.Stdout = &out
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		out.await(t, "ready")
		if l := left(); len(l) != 2 {
			t.Errorf("while two containers are there: %v", l)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		for i := 0; len(left()) != 1 && i < 50; i++ {
			run("true").want(t, 0)
		}
		if l := left(); len(l) != 1 || l[0].Name() != "kept-"+id {
			t.Errorf("left: %v", l)
		}
		c.run(t, "run", "-rm", id).want(t, 0, `^$`)
		if l := left(); len(l) != 0 {
			t.Errorf("left: %v", l)
		}
	})
}

// TestRunImageHealth: a command that fails its image's health check is ended, where it can be started again; the command line has the last word.
func TestRunImageHealth(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, nil)
		// The check has no effect before /ready is there, so that it cannot come too early, and kills then.
		p.build("FROM base:1\nHEALTHCHECK --interval=50ms --retries=1 CMD test ! -e /ready\nCMD [\"sh\", \"-c\", \"touch /ready; sleep 100000\"]\n").want(t, 0, `^sha256:`)
		run := func(args ...string) result {
			return c.run(t, "run", append([]string{"-q", "-store", p.store, "-image", "out:1"}, args...)...)
		}
		run("-restart", "on-failure:1").want(t, 137)
		// Whoever is not asked goes on: a check would end it long before it has waited for 20 of them.
		const goesOn = "touch /ready; sleep 1; echo went on"
		run("-restart", "on-failure:1", "-health", "none", "--", "sh", "-c", goesOn).want(t, 0, `^went on$`)
		run("-restart", "on-failure:1", "-health", "true", "--", "sh", "-c", goesOn).want(t, 0, `^went on$`)
		run("--", "sh", "-c", goesOn).want(t, 0, `^went on$`)
		p.build("FROM base:1\nHEALTHCHECK NONE\n", "-t", "none:1").want(t, 0, `^sha256:`)
		c.run(t, "run", "-q", "-store", p.store, "-image", "none:1", "-restart", "on-failure:1", "--", "sh", "-c", goesOn).want(t, 0, `^went on$`)
	})
}

// TestRunImageSources: an image comes from a layout, which gives it a name, and from a registry, once.
func TestRunImageSources(t *testing.T) {
	addr := distribution(t)
	asEach(t, func(t *testing.T, c caller) {
		file, at := imageArchive(t, c), func(name string) string { return filepath.Join(c.dir, name) }
		run := func(store string, args ...string) result {
			return c.run(t, "run", append([]string{"-q", "-store", at(store)}, args...)...)
		}
		const says = `^hello from /made/up$`
		run("one", "-image", "archive:"+file).want(t, 0, says)
		// A store is a layout.
		run("two", "-image", "layout:"+at("one")).want(t, 0, says, `^new passwd stays$`)
		run("two", "-image", "greet:1").want(t, 0, says)
		run("three", "-image", "layout:"+at("missing")).wantErr(t, 125, `missing`)
		run("three", "-image", "layout:"+c.dir).wantErr(t, 125, `oci-layout|index.json`)

		name := fmt.Sprintf("%s/greet%d:1", addr, c.uid)
		s, err := image.Open(filepath.Join(t.TempDir(), "store"), image.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		archive, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer archive.Close()
		if _, err := s.Load(t.Context(), archive, image.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Push(t.Context(), "greet:1", name, image.PushOptions{}); err != nil {
			t.Fatal(err)
		}
		first := run("three", "-image", name)
		first.want(t, 0, says, `^new passwd stays$`)
		first.wantErr(t, 0, `^sha256:[0-9a-f]+ \d+ bytes$`)
		if again := run("three", "-image", name); again.code != 0 || again.stderr != "" {
			t.Errorf("fetched again: %v", again)
		}
		run("three", "-image", fmt.Sprintf("%s/greet%d:2", addr, c.uid)).wantErr(t, 125, `not found`)
	})
}
