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
	"testing"
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
