package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/rootfs"
)

// attacks says which test meets each known attack on programs that read images, by its number at cve.org, with the path of the test's
// package where it is not this one.
var attacks = []struct{ id, what, test string }{
	{"CVE-2017-14992", "a small blob makes its reader allocate", "TestHostileLayers TestSmallBlobLargeClaim"},
	{"CVE-2018-15664", "a link is exchanged between look-up and use", "TestNothingOutside ../rootfs:TestAttack"},
	{"CVE-2019-14271", "what is in an image is loaded or run by who reads it", "TestNothingOfImagesRuns"},
	{"CVE-2026-41567", "a decompressor is taken from PATH or the image", "TestNothingOfImagesRuns"},
	{"CVE-2020-10696", "an entry is written through a link", "TestNothingOutside"},
	{"CVE-2021-29136", "the root directory becomes a link", "TestHostileLayers"},
	{"CVE-2021-32760", "modes are changed through links", "TestNothingOutside"},
	{"CVE-2026-17106", "links in the middle of paths lead outside", "TestNothingOutside TestUnpackKinds"},
	{"CVE-2025-22873", "names with dots leave the root", "TestHostileLayers"},
	{"CVE-2021-41190", "a document is a manifest and an index", "TestParseDocuments"},
	{"CVE-2024-3727", "a digest is a path", "TestParseDocuments TestOpenRefuses"},
	{"CVE-2025-58183", "the map of a sparse file is allocated as it says", "TestSmallBlobLargeClaim"},
	{"CVE-2024-40635", "a user id overflows to root", "../rootfs:TestUserSpec TestHostileLayers"},
	{"CVE-2026-46680", "a number that is too large is looked up as a name", "../rootfs:TestUserSpec"},
	{"CVE-2026-47262", "/etc/group is read without bound", "../rootfs:TestLookupUserFiles"},
	{"CVE-2022-2989", "groups of the user are left out", "../rootfs:TestLookupUserFiles"},
	{"CVE-2026-53488", "labels of an image mean something to who runs it", "TestLabelsMeanNothing"},
	{"CVE-2026-50195", "an archive takes the name of an image that is there", "TestLoadUnderName TestLabelsMeanNothing"},
	{"CVE-2022-4318", "a line break in an image's config makes a line of a file", "TestConfigProcess"},
	{"CVE-2021-41091", "others enter the directory of layers", "TestOpenRefuses TestStoreLayout"},
	{"CVE-2026-44517", "a link in a build's context is followed out of it", "../examples:TestBuildHostile"},
	{"CVE-2026-34040", "of what is larger than a bound a part is looked at", "TestReferrersOfManyBytes TestWrongSizes"},
	{"CVE-2024-23653", "a value that nobody knows means that nothing is refused", "TestOpenRefuses ../examples:TestBuildHostile"},
	{"CVE-2021-3602", "a helper sees the environment of who runs it", "TestIgzipAlone"},
	{"CVE-2026-33542", "a part of what was downloaded is verified", "TestHostileRegistry"},
}

// Every attack of the list has its tests.
func TestAttacksHaveTests(t *testing.T) {
	found := map[string]string{}
	read := func(dir string) string {
		if text, ok := found[dir]; ok {
			return text
		}
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, f := range files {
			all.Write(must[[]byte](t)(os.ReadFile(f)))
		}
		found[dir] = all.String()
		return found[dir]
	}
	for _, a := range attacks {
		for _, name := range strings.Fields(a.test) {
			dir, test, other := strings.Cut(name, ":")
			if !other {
				dir, test = ".", name
			}
			if !regexp.MustCompile(`(?m)^func ` + test).MatchString(read(dir)) {
				t.Errorf("%s (%s): no test %s", a.id, a.what, name)
			}
		}
	}
}

// Programs of the names that others call are not called, wherever they are.
func TestNothingOfImagesRuns(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	var ents []ent
	for _, n := range []string{"gzip", "gunzip", "pigz", "unpigz", "igzip", "zstd", "unzstd", "xz", "tar", "fuse-overlayfs", "newuidmap", "mount", "cp"} {
		script := "#!/bin/sh\n: >" + ran + "\nexit 1\n"
		if err := os.WriteFile(filepath.Join(dir, n), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		ents = append(ents, file("bin/"+n, script).with(func(h *tar.Header) { h.Mode = 0o755 }), file("usr/bin/"+n, script).with(func(h *tar.Header) { h.Mode = 0o755 }))
	}
	t.Setenv("PATH", dir)
	s := openStore(t, Options{})
	data := layer(t, ents...)
	putImage(t, s, "img", blob{gz(t, data), data}, blob{zst(t, data), data})
	must[*Unpacked](t)(s.Unpack(ctx, "img", UnpackOptions{}))
	must[[]string](t)(s.Extract(ctx, "img", t.TempDir(), UnpackOptions{}))
	must[*Snapshot](t)(s.NewSnapshot(ctx, "s", "img", SnapshotOptions{Method: MethodCopy}))
	must[*Snapshot](t)(s.NewSnapshot(ctx, "o", "img", SnapshotOptions{}))
	must[*rootfs.Description](t)(s.Rootfs("img").Describe(ctx, rootfs.Env{})).Close()
	if _, err := os.Lstat(ran); err == nil {
		t.Error("one was run")
	}
}

// Labels and annotations are text: none of them names an image, nor changes what runs.
func TestLabelsMeanNothing(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "victim", plain(layer(t, file("v", "v"))))
	before := must[Image](t)(s.Get(ctx, "victim"))
	labels := map[string]string{"org.opencontainers.image.ref.name": "docker.io/library/victim:latest", "io.containerd.image.name": "docker.io/library/victim:latest",
		"containerd.io/snapshot/overlay.upperdir": "/etc", "io.podman.annotations.privileged": "TRUE", "run.oci.handler": "/bin/evil", "cdi.k8s.io/devices": "vendor/x=all"}
	img := must[Image](t)(tryPutImage(s, "evil", ocispec.ImageConfig{Labels: labels}, plain(layer(t, file("e", "e")))))
	var archive bytes.Buffer
	if err := s.Save(ctx, &archive, "evil"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "evil"); err != nil {
		t.Fatal(err)
	}
	must[[]Image](t)(s.Load(ctx, &archive, LoadOptions{}))
	if after := must[Image](t)(s.Get(ctx, "victim")); after.Descriptor.Digest != before.Descriptor.Digest {
		t.Error("the name has another image")
	}
	info := must[*Info](t)(s.Inspect(ctx, "evil", nil))
	if info.Manifest.Digest != img.Descriptor.Digest || len(info.Config.Labels) != len(labels) {
		t.Errorf("%+v", info)
	}
	d := must[*rootfs.Description](t)(s.Rootfs("evil").Describe(ctx, rootfs.Env{}))
	defer d.Close()
	if len(d.Layers) != 1 || d.Upper.Dir != "" || len(d.Parts) != 0 {
		t.Errorf("%+v", d)
	}
}

// Loading is what gives names away, as documented: an archive has those that are in it, and takes none where the caller names what it holds.
func TestLoadUnderName(t *testing.T) {
	ctx := context.Background()
	s, other := openStore(t, Options{}), openStore(t, Options{})
	victim := putImage(t, s, "victim", plain(layer(t, file("v", "v")))).Descriptor.Digest
	evil := putImage(t, other, "victim", plain(layer(t, file("e", "e")))).Descriptor.Digest
	var archive bytes.Buffer
	if err := other.Save(ctx, &archive, "victim"); err != nil {
		t.Fatal(err)
	}
	data := archive.Bytes()
	for what, load := range map[string]func(o LoadOptions) ([]Image, error){
		"archive": func(o LoadOptions) ([]Image, error) { return s.Load(ctx, bytes.NewReader(data), o) },
		"layout":  func(o LoadOptions) ([]Image, error) { return s.LoadLayout(ctx, other.Dir(), o) },
	} {
		must[[]Image](t)(load(LoadOptions{Name: "mine"}))
		if got := must[Image](t)(s.Get(ctx, "victim")).Descriptor.Digest; got != victim {
			t.Errorf("%s: the name has another image", what)
		}
		if got := must[Image](t)(s.Get(ctx, "mine")).Descriptor.Digest; got != evil {
			t.Errorf("%s: %s", what, got)
		}
		if err := s.Remove(ctx, "mine"); err != nil {
			t.Fatal(err)
		}
	}
	must[[]Image](t)(s.Load(ctx, bytes.NewReader(data), LoadOptions{}))
	if got := must[Image](t)(s.Get(ctx, "victim")).Descriptor.Digest; got != evil {
		t.Errorf("by its own name: %s", got)
	}
}

// What a blob says that it holds is not allocated before it is there.
func TestSmallBlobLargeClaim(t *testing.T) {
	huge := func(edit func(h []byte)) []byte {
		data := layer(t, file("x", "y"))
		edit(data)
		return fixSum(data)
	}
	var sparse bytes.Buffer // the map of a sparse file in PAX 1.0 stands before its content, as long as it says
	w := tar.NewWriter(&sparse)
	head := &tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o644, Size: 512, Format: tar.FormatPAX}
	if err := w.WriteHeader(head); err != nil {
		t.Fatal(err)
	}
	w.Write(append([]byte("99999999999\n"), bytes.Repeat([]byte("0\n"), 250)...))
	w.Close()
	records := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n24 GNU.sparse.name=hole\n31 GNU.sparse.realsize=9999999\n"
	pax := layer(t, file("x", "").with(func(h *tar.Header) { h.Format, h.ModTime = tar.FormatUSTAR, at.Truncate(time.Second) }))[:512]
	body := make([]byte, 512)
	copy(body, records)
	copy(pax[124:], "00000000143\x00") // the length of records
	pax[156] = 'x'
	for name, data := range map[string][]byte{
		"a file of exabytes":    huge(func(h []byte) { copy(h[124:], binaryNumber(1<<60)) }),
		"a name of gigabytes":   huge(func(h []byte) { h[156] = 'L'; copy(h[124:], "77777777777\x00") }),
		"a record of gigabytes": huge(func(h []byte) { h[156] = 'x'; copy(h[124:], "77777777777\x00") }),
		"a map of gigabytes":    append(append(fixSum(pax), body...), sparse.Bytes()...),
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			putImage(t, s, "img", plain(data))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := s.Unpack(context.Background(), "img", UnpackOptions{})
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrArchive) && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrBadHeader) {
				t.Error(err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
				t.Errorf("%d bytes allocated", took)
			}
		})
	}
}
