package imagetest

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
)

// What a container did to its files goes to podman, as an archive of images; there a container does more, and what podman commits is the root
// of a container here. Each way nothing is lost: bytes, modes, owners, times, hard links.
func TestPodmanCommit(t *testing.T) {
	e := testutil.NewEngine(t, "podman", "runc")
	noLeaks(t)
	ctx, dir := testContext(t), t.TempDir()
	s := stored(t)
	c := container(t, s, "base", changes)
	if out, err := c.CombinedOutput(ctx); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var archive bytes.Buffer
	if _, err := s.Commit(ctx, "made:1", c, image.CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, &archive, "made:1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/in.tar", archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `rm -r /old; mkdir /old; echo theirs >/old/z; ln /old/z /d/theirs; chown 7:8 /d/theirs; mv /moved /again; rm /d/soft; echo more >>/new`
	e.Run(`files() { tar --format=posix -C "$(podman image mount "$1")" -cf "$2" .; }
podman load -q -i "$1/in.tar"
files docker.io/library/made:1 "$1/first.tar"
started --name second docker.io/library/made:1 sh -ec "$2"
podman commit -q second localhost/made:2
files localhost/made:2 "$1/second.tar"
podman save -q --format oci-archive -o "$1/out.tar" localhost/made:2
podman rm -fa`, dir, script)
	sameFiles(t, "podman's container", fileEntries(t, dir+"/first.tar"), exported(t, c, true))
	f, err := os.Open(dir + "/out.tar")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images, err := s.Load(ctx, f, image.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	last := container(t, s, images[0].Name, "cat /d/theirs /new; stat -c '%h %u:%g' /old/z")
	if out, err := last.CombinedOutput(ctx); err != nil || string(out) != "theirs\nnew\nmore\n2 7:8\n" {
		t.Errorf("%q, %v", out, err)
	}
	sameFiles(t, "a container of what podman committed", exported(t, last, true), fileEntries(t, dir+"/second.tar"))
}

func fileEntries(t *testing.T, path string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return entries(t, data, true)
}

// linked gives each file that has several names the same entries, whichever name of it the archive has first.
func linked(m map[string]string) map[string]string {
	out, names := map[string]string{}, map[string][]string{}
	for n, e := range m {
		n = strings.TrimPrefix(n, "./")
		if out[n] = e; strings.HasPrefix(e, "1 ") {
			to := strings.TrimPrefix(strings.Split(e, `"`)[1], "./")
			names[to] = append(names[to], n)
		}
	}
	for to, all := range names {
		file := out[to]
		all = append(all, to)
		slices.Sort(all)
		for _, n := range all {
			out[n] = file + " = " + strings.Join(all, " = ")
		}
	}
	return out
}

// sameFiles compares archives, but for the root directory, whose time engines set, and what a container's mounts lie on.
func sameFiles(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	got, want = linked(got), linked(want)
	for _, m := range []map[string]string{got, want} {
		for _, n := range []string{"", "dev/", "proc/", "sys/"} {
			delete(m, n)
		}
	}
	for n, e := range want {
		if got[n] != e {
			t.Errorf("%s: %s is %q, was %q", what, n, got[n], e)
		}
	}
	for n, e := range got {
		if want[n] == "" {
			t.Errorf("%s: %s appears: %s", what, n, e)
		}
	}
}

// A Debian system made by debootstrap becomes an image, whose containers have every file as its package says; so does what one of them
// leaves behind.
func TestDebootstrap(t *testing.T) {
	root := testutil.FullRootfs(t)
	testutil.NeedRoot(t)
	if _, err := os.Stat(root + "/usr/bin/dpkg"); err != nil {
		t.Skip("CAISSON_TEST_ROOTFS does not name a root filesystem of Debian")
	}
	noLeaks(t)
	ctx := testContext(t)
	s, err := image.Open(t.TempDir()+"/store", image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tar := exec.Command("tar", "-C", root, "--one-file-system", "--xattrs", "-c", ".")
	var failed bytes.Buffer
	tar.Stderr = &failed
	out, err := tar.StdoutPipe()
	if err == nil {
		err = tar.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Import(ctx, out, "debian", image.ImportOptions{Config: ocispec.ImageConfig{Cmd: []string{"bash"}}})
	if werr := tar.Wait(); err != nil || werr != nil {
		t.Fatal(err, werr, failed.String())
	}
	check := `dpkg --verify && dpkg-query -W bash | grep -q bash && perl -e 'print 6*7, "\n"' && apt-get --version | head -n 1 | cut -d' ' -f1`
	first := container(t, s, "debian", check+" && rm -r /usr/share/doc/bash && echo new >/new")
	if out, err := first.CombinedOutput(ctx); err != nil || string(out) != "42\napt\n" {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := s.Commit(ctx, "changed", first, image.CommitOptions{}); err != nil {
		t.Fatal(err)
	}
	second := container(t, s, "changed", "cat /new; dpkg --verify", caisson.WithMemory(0))
	if out, err := second.CombinedOutput(ctx); err != nil || !strings.HasPrefix(string(out), "new\n") || !strings.Contains(string(out), "missing     /usr/share/doc/bash") {
		t.Errorf("%q, %v", out, err)
	}
}
