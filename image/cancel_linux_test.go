package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// cancelsEnv is the name of a variable: how often each call is cancelled at a moment of chance.
const cancelsEnv = "CAISSON_TEST_CANCELS"

// stuck is a reader or writer that goes on for a while, and then waits until it is released.
type stuck struct {
	give    []byte // to who reads
	take    int    // of who writes
	began   chan struct{}
	release chan struct{}
	once    sync.Once
}

func newStuck(give []byte, take int) *stuck {
	return &stuck{give: give, take: take, began: make(chan struct{}), release: make(chan struct{})}
}

func (s *stuck) wait() {
	s.once.Do(func() { close(s.began) })
	<-s.release
}

// Read implements io.Reader.
func (s *stuck) Read(p []byte) (int, error) {
	if n := copy(p, s.give); n > 0 {
		s.give = s.give[n:]
		return n, nil
	}
	s.wait()
	return 0, io.EOF
}

// Write implements io.Writer.
func (s *stuck) Write(p []byte) (int, error) {
	if s.take -= len(p); s.take < 0 {
		s.wait()
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// viewOf is a container that has the files of a directory.
func viewOf(dir string) Viewer {
	return ViewFunc(func(context.Context) (*rootfs.View, error) {
		root, err := rootfs.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		return &rootfs.View{Root: root, Release: root.Close}, nil
	})
}

// state is all of a store but for locks that nobody holds.
func state(t testing.TB, s *Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		dir, name := filepath.Split(strings.TrimPrefix(p, s.dir+"/"))
		if dir == dirIngest+"/" && fi.Size() == 0 && (strings.HasPrefix(name, "fetch-") || strings.HasPrefix(name, "layer-")) {
			return nil
		}
		out[dir+name] = fi.Mode().String()
		if fi.Mode().IsRegular() {
			out[dir+name] += fmt.Sprint(" ", fi.Size())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// leftIn are the paths of a store that were not there before, or are different.
func leftIn(before, after map[string]string) (out []string) {
	for _, p := range slices.Sorted(maps.Keys(after)) {
		if before[p] != after[p] {
			out = append(out, p)
		}
	}
	return out
}

// A call that waits for somebody else returns when its context ends, with the cause, while that other still does nothing. It leaves the store as it was, but for blobs that are whole where it
// says so; and nothing of it is there when the other has let go.
func TestCancelledWhileBlocked(t *testing.T) {
	far := openStore(t, Options{})
	data := layer(t, file("a", strings.Repeat("a", 300_000)), file("b", strings.Repeat("b", 1_500_000)))
	img := putImage(t, far, "a", plain(data), plain(layer(t, file("c", "c"))))
	var saved strings.Builder
	if err := far.Save(context.Background(), &saved, "a"); err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	if err := os.WriteFile(tree+"/f", make([]byte, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	// A registry that stops in the middle of an answer to one path, or of a request to it.
	serve := func(t *testing.T, path string, size int64, st *stuck) (name string) {
		h := &shelf{s: far, tag: img.Descriptor}
		h.before = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, path) || r.Method == http.MethodHead {
				return false
			}
			w.Header().Set("Content-Type", img.Descriptor.MediaType)
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = w.Write(data[:size/2])
			w.(http.Flusher).Flush()
			st.wait()
			return true
		}
		return h.serve(t)
	}
	accept := func(t *testing.T, method string, st *stuck) (name string) {
		k := &sink{}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method {
				_, _ = io.CopyN(io.Discard, r.Body, 100_000)
				st.wait()
				return
			}
			k.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "http://") + "/team/app:1"
	}
	for name, c := range map[string]struct {
		st    *stuck
		do    func(t *testing.T, ctx context.Context, s *Store, st *stuck) error
		blobs bool // those that are whole may stay
	}{
		"Load": {newStuck([]byte(saved.String())[:1_000_000], 0), func(_ *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Load(ctx, st, LoadOptions{})
			return err
		}, false},
		"Load at the beginning": {newStuck(nil, 0), func(_ *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Load(ctx, st, LoadOptions{})
			return err
		}, false},
		"Import": {newStuck(data[:1_000_000], 0), func(_ *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Import(ctx, st, "x", ImportOptions{})
			return err
		}, false},
		"Import of gzip": {newStuck(gz(t, data)[:1000], 0), func(_ *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Import(ctx, st, "x", ImportOptions{})
			return err
		}, false},
		"Write": {newStuck(data[:1_000_000], 0), func(_ *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Write(ctx, "x", ImageSpec{Layers: []Layer{TarLayer(st)}})
			return err
		}, false},
		"Save": {newStuck(nil, 800_000), func(_ *testing.T, ctx context.Context, _ *Store, st *stuck) error { return far.Save(ctx, st, "a") }, false},
		"Export": {newStuck(nil, 800_000), func(_ *testing.T, ctx context.Context, _ *Store, st *stuck) error {
			return Export(ctx, st, viewOf(tree), TreeOptions{})
		}, false},
		"Pull of a manifest": {newStuck(nil, 0), func(t *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Pull(ctx, serve(t, "/manifests/sha256:", img.Descriptor.Size, st), PullOptions{RegistryOptions: anonymous})
			return err
		}, false},
		"Pull of a layer": {newStuck(nil, 0), func(t *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Pull(ctx, serve(t, sha256Hex(data), int64(len(data)), st), PullOptions{RegistryOptions: anonymous})
			return err
		}, true},
		"Push of a layer": {newStuck(nil, 0), func(t *testing.T, ctx context.Context, _ *Store, st *stuck) error {
			return far.Push(ctx, "a", accept(t, http.MethodPut, st), PushOptions{RegistryOptions: anonymous})
		}, false},
		"Push before a layer": {newStuck(nil, 0), func(t *testing.T, ctx context.Context, _ *Store, st *stuck) error {
			return far.Push(ctx, "a", accept(t, http.MethodPost, st), PushOptions{RegistryOptions: anonymous})
		}, false},
		"Commit": {newStuck(nil, 0), func(_ *testing.T, ctx context.Context, s *Store, st *stuck) error {
			_, err := s.Commit(ctx, "x", ViewFunc(func(ctx context.Context) (*rootfs.View, error) {
				close(st.began)
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}), CommitOptions{})
			return err
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			testutil.NoLeaks(t)
			s := openStore(t, Options{})
			before, farBefore := state(t, s), state(t, far)
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			cause := errors.New("enough")
			done := make(chan error, 1)
			go func() { done <- c.do(t, ctx, s, c.st) }()
			released := sync.OnceFunc(func() { close(c.st.release) })
			defer released()
			wait := time.After(testutil.Time(2 * time.Minute))
			select {
			case <-c.st.began:
			case err := <-done:
				t.Fatal("before it was cancelled:", err)
			case <-wait:
				t.Fatal("it does not get so far")
			}
			cancel(cause)
			select {
			case err := <-done:
				if !errors.Is(err, cause) {
					t.Errorf("%v", err)
				}
			case <-wait:
				released()
				t.Fatal("it goes on waiting")
			}
			after := leftIn(before, state(t, s))
			if c.blobs {
				after = slices.DeleteFunc(after, func(p string) bool { return strings.HasPrefix(p, dirBlobs+"/sha256/") })
			}
			if after = append(after, leftIn(farBefore, state(t, far))...); len(after) > 0 {
				t.Errorf("left: %q", after)
			}
			if f, err := s.Verify(context.Background()); err != nil || len(f) != 0 {
				t.Errorf("%+v, %v", f, err)
			}
		})
	}
}

// A credential helper that is killed may have started something that holds its output: nobody waits for that.
func TestCancelledCredentialHelper(t *testing.T) {
	testutil.NoLeaks(t)
	h, _ := newShelf(t)
	name := wants(h, "me", "secret").serve(t)
	host, _, _ := strings.Cut(name, "/")
	dir := t.TempDir()
	script := "#!/bin/sh\n(read x <" + dir + "/fifo) &\n: >" + dir + "/began\nwait\n"
	if err := errors.Join(mkfifo(dir+"/fifo"), os.WriteFile(dir+"/docker-credential-slow", []byte(script), 0o700),
		os.WriteFile(dir+"/config.json", []byte(`{"credHelpers":{"`+host+`":"slow"}}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir)
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	s := openStore(t, Options{})
	done := make(chan error, 1)
	go func() {
		_, err := s.Pull(ctx, name, PullOptions{RegistryOptions: RegistryOptions{Attempts: 1}})
		done <- err
	}()
	began := testutil.Eventually(testutil.Time(time.Minute), func() bool {
		_, err := os.Stat(dir + "/began")
		return err == nil || len(done) > 0
	})
	cancel(cause)
	select {
	case err := <-done:
		if !began || !errors.Is(err, cause) {
			t.Errorf("began %v, %v", began, err)
		}
	case <-time.After(testutil.Time(time.Minute)):
		t.Error("it waits for what the helper has started")
	}
	testutil.Eventually(testutil.Time(time.Minute), func() bool { // it is let go
		fd, err := unix.Open(dir+"/fifo", unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	})
}

// looks is a context that ends when it is looked at for the nth time.
type looks struct {
	context.Context
	cancel context.CancelCauseFunc
	cause  error
	left   atomic.Int64
}

func newLooks(n int64) *looks {
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &looks{Context: ctx, cancel: cancel, cause: errors.New("enough")}
	l.left.Store(n)
	return l
}

func (l *looks) look() {
	if l.left.Add(-1) == 0 {
		l.cancel(l.cause)
	}
}

// Err implements context.Context.
func (l *looks) Err() error { l.look(); return l.Context.Err() }

// Done implements context.Context.
func (l *looks) Done() <-chan struct{} { l.look(); return l.Context.Done() }

// Value implements context.Context. A context that is made of this one asks for it, and so do calls that ask for the cause.
func (l *looks) Value(key any) any { return l.Context.Value(key) }

// cancelled are the calls that may take long. dir is an empty directory of their own, tell is told of progress.
var cancelled = map[string]func(ctx context.Context, s *Store, dir, ref string, tell func(Progress)) error{
	"Pull": func(ctx context.Context, s *Store, _, ref string, tell func(Progress)) error {
		_, err := s.Pull(ctx, ref, PullOptions{RegistryOptions: anonymous, Progress: tell})
		return err
	},
	"Push": func(ctx context.Context, s *Store, _, ref string, tell func(Progress)) error {
		return s.Push(ctx, "a", ref, PushOptions{RegistryOptions: anonymous, Progress: tell})
	},
	"LoadLayout": func(ctx context.Context, s *Store, _, ref string, tell func(Progress)) error {
		_, err := s.LoadLayout(ctx, filepath.Join(filepath.Dir(s.dir), "far"), LoadOptions{Progress: tell})
		return err
	},
	"Load": func(ctx context.Context, s *Store, _, ref string, tell func(Progress)) error {
		f, err := os.Open(filepath.Join(filepath.Dir(s.dir), "saved"))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = s.Load(ctx, f, LoadOptions{Progress: tell})
		return err
	},
	"Save": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		return s.Save(ctx, new(nothing), "a")
	},
	"Import": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		f, err := os.Open(filepath.Join(filepath.Dir(s.dir), "tar"))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = s.Import(ctx, f, "x", ImportOptions{})
		return err
	},
	"Unpack": func(ctx context.Context, s *Store, _, _ string, tell func(Progress)) error {
		_, err := s.Unpack(ctx, "a", UnpackOptions{Progress: tell, Durable: true})
		return err
	},
	"Unpack to EROFS": func(ctx context.Context, s *Store, _, _ string, tell func(Progress)) error {
		_, err := s.Unpack(ctx, "a", UnpackOptions{EROFS: true, Progress: tell})
		return err
	},
	"Extract": func(ctx context.Context, s *Store, dir, _ string, tell func(Progress)) error {
		_, err := s.Extract(ctx, "a", dir, UnpackOptions{Progress: tell})
		return err
	},
	"Squash": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.Squash(ctx, "x", SquashOptions{Image: "a", Keep: 1})
		return err
	},
	"Rebase": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.Rebase(ctx, "x", RebaseOptions{Image: "a", From: "a", To: "a"})
		return err
	},
	"Commit": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.Commit(ctx, "x", viewOf(filepath.Join(filepath.Dir(s.dir), "tree")), CommitOptions{Base: "a"})
		return err
	},
	"Write": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		files := fstest.MapFS{}
		for i := range 50 {
			files[fmt.Sprint(i)] = &fstest.MapFile{Data: make([]byte, 1000)}
		}
		_, err := s.Write(ctx, "x", ImageSpec{Base: "a", Layers: []Layer{FSLayer(files, FSOptions{}), DirLayer(Tree{Path: filepath.Join(filepath.Dir(s.dir), "tree")}, TreeOptions{})}})
		return err
	},
	"Verify": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.Verify(ctx)
		return err
	},
	"Repair": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.Repair(ctx)
		return err
	},
	"GC": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.GC(ctx)
		return err
	},
	"Volumes": func(ctx context.Context, s *Store, dir, _ string, _ func(Progress)) error {
		_, err := s.Volumes(ctx, "a", dir, VolumeOptions{Paths: []string{"/d", "/e"}})
		return err
	},
	"Snapshot": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.NewSnapshot(ctx, "x", "a", SnapshotOptions{})
		return err
	},
	"Snapshot by copy": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error {
		_, err := s.NewSnapshot(ctx, "x", "a", SnapshotOptions{Method: MethodCopy})
		return err
	},
	"Tag":    func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error { return s.Tag(ctx, "a", "x") },
	"Remove": func(ctx context.Context, s *Store, _, _ string, _ func(Progress)) error { return s.Remove(ctx, "a") },
}

// nothing is a writer that the library knows nothing of.
type nothing struct{}

func (*nothing) Write(p []byte) (int, error) { return len(p), nil }

// A call that is cancelled at any moment has succeeded or returns the cause. Images, snapshots and directories of the caller's are as they were then, nothing is half done, and what is left are whole
// blobs and layers.
func TestCancelledAtAnyMoment(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	far := openStore(t, Options{})
	data := func(i int) []byte {
		var ents []ent
		for j := range 20 {
			ents = append(ents, dir(fmt.Sprintf("d/%d", i)), file(fmt.Sprintf("d/%d/%d", i, j), strings.Repeat(fmt.Sprint(i, j), 3000)), file(fmt.Sprintf("e/%d-%d", i, j), ""))
		}
		return layer(t, ents...)
	}
	blobs := []blob{{gz(t, data(0)), data(0)}, {zst(t, data(1)), data(1)}, plain(data(2))}
	img := putImage(t, far, "far", append(blobs, plain(layer(t, file("more", "more"))))...)
	ref := (&shelf{s: far, tag: img.Descriptor}).serve(t)
	to := httptest.NewServer(&sink{})
	defer to.Close()
	push := strings.TrimPrefix(to.URL, "http://") + "/team/app:1"
	var saved strings.Builder
	err := errors.Join(far.Save(ctx, &saved, "far"), os.WriteFile(root+"/saved", []byte(saved.String()), 0o600), os.WriteFile(root+"/tar", data(3), 0o600), os.Symlink(far.dir, root+"/far"), os.MkdirAll(root+"/tree/sub", 0o755))
	for i := range 30 {
		err = errors.Join(err, os.WriteFile(fmt.Sprintf("%s/tree/sub/%d", root, i), make([]byte, 5000), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	testutil.NoLeaks(t)
	model := openStore(t, Options{})
	putImage(t, model, "a", blobs...)
	seed := uint64(1) // each run looks at the same moments; the long form at others each time
	if os.Getenv(cancelsEnv) != "" {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	for _, name := range slices.Sorted(maps.Keys(cancelled)) {
		do, from := cancelled[name], ref
		if name == "Push" {
			from = push
		}
		for range envNumber(cancelsEnv, 2) {
			dir := filepath.Join(root, "store")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.CopyFS(dir, os.DirFS(model.dir))); err != nil {
				t.Fatal(err)
			}
			s := must[*Store](t)(Open(dir, Options{}))
			if name == "GC" { // there is something to remove
				must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
				if err := s.Remove(ctx, "a"); err != nil {
					t.Fatal(err)
				}
			}
			own := must[string](t)(os.MkdirTemp(root, "own-*"))
			before := state(t, s)
			// Most calls look some ten times, some a hundred.
			l := newLooks(1 + chance.Int64N(1<<chance.IntN(9)))
			tell := func(Progress) {}
			if chance.IntN(2) == 0 {
				tell = func(Progress) { l.look() }
			}
			err := do(l, s, own, from, tell)
			if err != nil && !errors.Is(err, l.cause) {
				t.Errorf("%s: %v", name, err)
			}
			left := leftIn(before, state(t, s))
			for _, p := range left {
				top, rest, _ := strings.Cut(p, "/")
				whole := p == fileIndex && err == nil || rest != "" && (top == dirBlobs || top == dirLayers || top == dirSnapshots && err == nil) || name == "GC" && err != nil && strings.HasPrefix(rest, trashPrefix)
				if !whole {
					t.Errorf("%s: %v left %s", name, err, p)
				}
			}
			if files := must[[]os.DirEntry](t)(os.ReadDir(own)); err != nil && len(files) > 0 {
				t.Errorf("%s left %v", name, files)
			}
			if name == "GC" { // the next one goes on
				must[Freed](t)(s.GC(ctx))
				if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirIngest))); len(left) > 0 {
					t.Errorf("the next GC left %v", left)
				}
			}
			if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
				t.Errorf("%s: %+v, %v", name, f, err)
			}
			l.cancel(nil)
			s.Close()
			if err := errors.Join(removeTree(s.dir), removeTree(own)); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				return
			}
		}
	}
}
