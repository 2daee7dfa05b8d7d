//go:build linux

package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOcirunBuildah builds an image whose steps run in ocirun, and runs a command in a working container.
func TestOcirunBuildah(t *testing.T) {
	if _, err := exec.LookPath("buildah"); err != nil {
		t.Skip("buildah is not installed")
	}
	e := needPodman(t)
	src := filepath.Join(e.dir, "src")
	err := os.Mkdir(src, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(src, "Containerfile"), []byte("FROM localhost/bb\nRUN echo $(id -u) > /built\nRUN --mount=type=tmpfs,target=/mnt grep /mnt /proc/mounts\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	buildah := func(args ...string) result {
		at := func(name string) string { return filepath.Join(e.dir, name) }
		cmd := exec.Command("env", append([]string{e.args[0], "buildah", "--root", at("root"), "--runroot", at("run"), "--storage-driver", "vfs"}, args...)...)
		cmd.Dir = e.dir
		return (&runtimeOf{}).finishLeaving(t, cmd)
	}
	ocirun := filepath.Join(bin, "ocirun")
	engineFeature(t, "build", func(t *testing.T) {
		buildah("bud", "--runtime", ocirun, "--isolation", "oci", "--network", "none", "-t", "localhost/built", src).want(t, 0, `^\S+ /mnt tmpfs`)
	})
	engineFeature(t, "run what was built", func(t *testing.T) {
		buildah("from", "--name", "work", "localhost/built").want(t, 0, `^work$`)
		buildah("run", "--runtime", ocirun, "--isolation", "oci", "--network", "none", "work", "cat", "/built").want(t, 0, `^0$`)
	})
	engineFeature(t, "run, exit status", func(t *testing.T) {
		buildah("run", "--runtime", ocirun, "--isolation", "oci", "--network", "none", "work", "sh", "-c", "exit 3").want(t, 3)
	})
	buildah("rm", "work").want(t, 0)
}
