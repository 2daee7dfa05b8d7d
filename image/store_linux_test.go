package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

func TestMain(m *testing.M) {
	testutil.Main(m, map[string]func(){"tagger": tagger, "unpacker": unpacker, "life": roleLife, "power": rolePower, "puller": rolePuller, "hungry": roleHungry, "credentials": roleCredentials})
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func names(t testing.TB, s *Store) []string {
	t.Helper()
	var out []string
	for _, i := range must[[]Image](t)(s.List(context.Background())) {
		out = append(out, i.Name)
	}
	return out
}

func TestStoreNames(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	img := putImage(t, s, "a", plain(layer(t, file("x", "x"))))
	check := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	check(s.Tag(ctx, "a", "localhost:5000/b:1"), nil)
	check(s.Tag(ctx, "a:latest", "c"), nil)
	check(s.Tag(ctx, "nothing", "c"), ErrNotFound)
	check(s.Tag(ctx, "nothing", "c"), fs.ErrNotExist)
	check(s.Tag(ctx, "a", "C"), ErrReference)
	check(s.Tag(ctx, "a", "c@"+someDigest), ErrReference)
	if got := fmt.Sprint(names(t, s)); got != "[docker.io/library/a:latest docker.io/library/c:latest localhost:5000/b:1]" {
		t.Error(got)
	}
	info := must[*Info](t)(s.Inspect(ctx, "c", nil))
	for _, name := range []string{"a", "docker.io/library/a", info.ID.String(), img.Descriptor.Digest.String(), "a@" + img.Descriptor.Digest.String(), "localhost:5000/b:1@" + img.Descriptor.Digest.String()} {
		if got, err := s.Get(ctx, name); err != nil || got.Descriptor.Digest != img.Descriptor.Digest {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"b", "a@" + someDigest, someDigest, "localhost:5000/b:1@" + someDigest} {
		_, err := s.Get(ctx, name)
		check(err, ErrNotFound)
	}
	check(s.Remove(ctx, "c"), nil)
	check(s.Remove(ctx, "c"), ErrNotFound)
	check(s.Remove(ctx, img.Descriptor.Digest.String()), nil)
	if left := names(t, s); len(left) != 0 {
		t.Error(left)
	}
	s.Close()
	_, err := s.List(ctx)
	check(err, fs.ErrClosed)
}

// The store is an image layout that the specification's own words describe.
func TestStoreLayout(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("x", "x"))))
	var index ocispec.Index
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(s.dir+"/index.json")), &index); err != nil {
		t.Fatal(err)
	}
	if index.SchemaVersion != 2 || len(index.Manifests) != 1 || index.Manifests[0].Annotations[ocispec.AnnotationRefName] != "docker.io/library/a:latest" {
		t.Errorf("%+v", index)
	}
	if got := string(must[[]byte](t)(os.ReadFile(s.dir + "/oci-layout"))); got != `{"imageLayoutVersion":"1.0.0"}` {
		t.Error(got)
	}
	filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if fi, err := os.Lstat(p); err == nil && fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", p, fi.Mode().Perm())
		}
		return nil
	})
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    error
	}{
		"something else": {func(d string) error { return os.WriteFile(d+"/file", nil, 0o600) }, fs.ErrExist},
		"open to others": {func(d string) error { return os.Chmod(d, 0o750) }, fs.ErrPermission},
		"broken index": {func(d string) error {
			return errors.Join(os.WriteFile(d+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600), os.WriteFile(d+"/index.json", []byte("{"), 0o600))
		}, ErrCorrupt},
		"other version": {func(d string) error {
			return os.WriteFile(d+"/oci-layout", []byte(`{"imageLayoutVersion":"2.0.0"}`), 0o600)
		}, ErrCorrupt},
		"digest as path": {func(d string) error {
			return errors.Join(os.WriteFile(d+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600),
				os.WriteFile(d+"/index.json", []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"x","size":1,"digest":"sha256:../../../../../../../../../../../../../../../../../etc/passwd0000"}]}`), 0o600))
		}, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			d := t.TempDir()
			if err := errors.Join(os.Chmod(d, 0o700), c.prepare(d)); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(d, Options{}); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "s"), Options{Limits: Limits{Bytes: -1, Memory: 1}, Policy: Policy{Devices: 9}}); !errors.Is(err, fs.ErrInvalid) ||
		!strings.Contains(err.Error(), "Bytes") || !strings.Contains(err.Error(), "Devices") || !strings.Contains(err.Error(), "Memory") {
		t.Errorf("%v", err)
	}
}

// Garbage goes, and nothing that an image or a container needs, also when the image of the container was removed, or its
// program does not close it.
func TestGC(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := context.Background()
	s := openStore(t, Options{})
	base, a, b := plain(layer(t, file("base", ""))), plain(layer(t, file("a", ""))), plain(layer(t, file("b", "")))
	putImage(t, s, "a", base, a)
	putImage(t, s, "b", base, b)
	env := rootfs.Env{}
	used := must[*rootfs.Description](t)(s.Rootfs("a").Describe(ctx, env))
	must[*rootfs.Description](t)(s.Rootfs("b").Lease("box").Describe(ctx, env)).Close()
	usage := must[Usage](t)(s.Usage(ctx))
	if usage.Images != 2 || usage.Layers != 3 || usage.Blobs != 7 {
		t.Errorf("%+v", usage)
	}
	gc := func(blobs, layers int) {
		t.Helper()
		if f, err := s.GC(ctx); err != nil || f.Blobs != blobs || f.Layers != layers {
			t.Errorf("%+v, %v; want %d blobs, %d layers", f, err, blobs, layers)
		}
	}
	gc(0, 0)
	if err := errors.Join(s.Remove(ctx, "a"), s.Remove(ctx, "b")); err != nil {
		t.Fatal(err)
	}
	gc(7, 0)
	for _, l := range used.Layers {
		if _, err := os.Stat(l.Path); err != nil {
			t.Error(err)
		}
	}
	if err := used.Close(); err != nil {
		t.Error(err)
	}
	gc(0, 1)
	if err := s.DropLease(ctx, "box"); err != nil {
		t.Error(err)
	}
	if err := s.DropLease(ctx, "box"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	gc(0, 2)
	if u := must[Usage](t)(s.Usage(ctx)); u.Blobs+u.Layers+u.Images != 0 {
		t.Errorf("%+v", u)
	}
	for _, d := range []string{dirIngest, dirLeases, dirLayers} {
		if left, _ := os.ReadDir(s.path(d)); len(left) != 0 {
			t.Errorf("%s: %v", d, left)
		}
	}
}

// A lease of an earlier start of the machine, or of a program that was killed, counts no more.
func TestDeadLeases(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("a", ""))))
	d := must[*rootfs.Description](t)(s.Rootfs("a").Lease("old").Describe(ctx, rootfs.Env{}))
	d.Close()
	path := s.path(dirLeases + "/" + durablePrefix + "old")
	data := strings.Replace(string(must[[]byte](t)(os.ReadFile(path))), s.boot, strings.Repeat("0", 36), 1)
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(dirLeases+"/use-killed"), []byte(`{"lay`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if f, err := s.GC(ctx); err != nil || f.Layers != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestVerifyAndRepair(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	bad, good := plain(layer(t, file("a", "a"))), plain(layer(t, file("b", "b")))
	putImage(t, s, "bad", bad)
	putImage(t, s, "missing", plain(layer(t, file("m", ""))))
	putImage(t, s, "good", good)
	if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
		t.Fatalf("%v, %v", f, err)
	}
	flip := func(hex string) {
		p := filepath.Join(s.dir, "blobs/sha256", hex)
		data := must[[]byte](t)(os.ReadFile(p))
		data[5] ^= 1
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip(sha256Hex(bad.data))
	m := must[*ocispec.Manifest](t)(s.manifest(must[Image](t)(s.Get(ctx, "missing")).Descriptor))
	if err := os.Remove(s.blobPath(m.Config.Digest)); err != nil {
		t.Fatal(err)
	}
	faults := must[[]Fault](t)(s.Repair(ctx))
	if len(faults) != 2 {
		t.Fatalf("%+v", faults)
	}
	for _, f := range faults {
		want := ErrNotFound
		if f.Digest.Encoded() == sha256Hex(bad.data) {
			want = ErrDigest
		}
		if !errors.Is(f.Err, want) || len(f.Images) != 1 {
			t.Errorf("%+v", f)
		}
	}
	if got := names(t, s); len(got) != 1 || got[0] != "docker.io/library/good:latest" {
		t.Error(got)
	}
	if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
}

// Blobs are durable before success is reported also where index.json says already what it is to say: another platform of an index that is there was fetched.
func TestBlobsDurableWithoutChange(t *testing.T) {
	s := openStore(t, Options{})
	img := putImage(t, s, "a", plain(layer(t, file("x", ""))))
	blobs := s.path(dirBlobs + "/sha256")
	for what, images := range map[string][]Image{"the same": {img}, "a new one": {img, {Name: "docker.io/library/b:1", Descriptor: img.Descriptor}}} {
		before := string(must[[]byte](t)(os.ReadFile(s.path(fileIndex))))
		// What is not there cannot be synced, and who does not try does not see it.
		if err := os.Rename(blobs, blobs+".away"); err != nil {
			t.Fatal(err)
		}
		err := s.putImages(context.Background(), images...)
		if err := os.Rename(blobs+".away", blobs); err != nil {
			t.Fatal(err)
		}
		if after := string(must[[]byte](t)(os.ReadFile(s.path(fileIndex)))); !errors.Is(err, fs.ErrNotExist) || before != after {
			t.Errorf("%s: %v, and the index is %s", what, err, after)
		}
	}
}

// A layer that was unpacked before the last start of the machine is used again only if it was synced.
func TestUnpackAfterCrash(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("a", "whole"))))
	reboot := func() { s.boot = strings.Repeat("1", 35) + fmt.Sprint(time.Now().UnixNano()%10) }
	u := must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
	lose := func() {
		if err := os.WriteFile(u.Dirs[0]+"/a", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	content := func() string {
		must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
		return string(must[[]byte](t)(os.ReadFile(u.Dirs[0] + "/a")))
	}
	lose()
	reboot()
	if got := content(); got != "whole" {
		t.Errorf("after a crash: %q", got)
	}
	if _, err := s.Unpack(ctx, "a", UnpackOptions{Durable: true}); err != nil {
		t.Fatal(err)
	}
	lose()
	reboot()
	if got := content(); got != "" {
		t.Error("a durable layer was unpacked again")
	}
}

// tagger gives an image many names, as one of several processes.
func tagger() {
	s, err := Open(os.Getenv("STORE"), Options{})
	for i := 0; i < 20 && err == nil; i++ {
		err = s.Tag(context.Background(), "a", fmt.Sprintf("t%s:%d", os.Getenv("NAME"), i))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// unpacker unpacks an image, as one of several processes.
func unpacker() {
	s, err := Open(os.Getenv("STORE"), Options{})
	if err == nil {
		_, err = s.Unpack(context.Background(), "a", UnpackOptions{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Several processes change one store, with garbage collected meanwhile, and nothing is lost.
func TestManyProcesses(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("a", strings.Repeat("a", 1<<20)))), plain(layer(t, file("b", strings.Repeat("b", 1<<20)))))
	var procs []*exec.Cmd
	for i := range 4 {
		for _, role := range []string{"tagger", "unpacker"} {
			cmd := testutil.Role(role, "STORE="+s.dir, fmt.Sprint("NAME=", i))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			procs = append(procs, cmd)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.GC(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for _, p := range procs {
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
	if got := names(t, s); len(got) != 81 {
		t.Errorf("%d names", len(got))
	}
	if f, err := s.Verify(context.Background()); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
	if u := must[Usage](t)(s.Usage(context.Background())); u.Layers != 2 {
		t.Errorf("%+v", u)
	}
}

// A program that is killed while it unpacks leaves nothing that the next one does not clear away.
func TestKilled(t *testing.T) {
	s := openStore(t, Options{})
	var blobs []blob
	for i := range 4 {
		var ents []ent
		for j := range 100 {
			ents = append(ents, file(fmt.Sprintf("d%d/f%d", i, j), strings.Repeat("x", 10000)))
		}
		blobs = append(blobs, plain(layer(t, ents...)))
	}
	putImage(t, s, "a", blobs...)
	before := listing(t, s)
	for i := range 8 {
		cmd := testutil.Role("unpacker", "STORE="+s.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i*5) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		again := must[*Store](t)(Open(s.dir, Options{}))
		if left, _ := os.ReadDir(s.path(dirIngest)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if f, err := again.Verify(context.Background()); err != nil || len(f) != 0 {
			t.Errorf("%v, %v", f, err)
		}
		after := listing(t, s)
		maps.DeleteFunc(after, func(p string, _ int64) bool { return strings.Contains(p, "/layers/") || strings.HasSuffix(p, "/lock") })
		maps.DeleteFunc(before, func(p string, _ int64) bool { return strings.HasSuffix(p, "/lock") })
		if !maps.Equal(before, after) {
			t.Errorf("%v\n%v", before, after)
		}
		u := must[*Unpacked](t)(again.Unpack(context.Background(), "a", UnpackOptions{}))
		for _, d := range u.Dirs {
			if sub, _ := filepath.Glob(d + "/*/f*"); len(sub) != 100 {
				t.Errorf("%s has %d files", d, len(sub))
			}
		}
		if err := removeTree(s.path(dirLayers)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(s.path(dirLayers), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// A context that ends stops the work, and leaves nothing.
func TestUnpackCancelled(t *testing.T) {
	testutil.NoLeaks(t)
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("a", strings.Repeat("a", 4<<20)))))
	before := listing(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Unpack(ctx, "a", UnpackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if after := listing(t, s); !maps.Equal(before, after) {
		t.Errorf("%v\n%v", before, after)
	}
	slow := openStore(t, Options{Limits: Limits{Time: 1}})
	putImage(t, slow, "a", plain(layer(t, file("a", strings.Repeat("a", 4<<20)))))
	var limit *LimitError
	if _, err := slow.Unpack(context.Background(), "a", UnpackOptions{}); !errors.As(err, &limit) || limit.Limit != "Time" {
		t.Errorf("%v", err)
	}
}
