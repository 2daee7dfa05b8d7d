package image

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// Names of variables: by how many system calls the moments of a kill lie apart, and how many programs are killed at random.
const (
	killStepEnv = "CAISSON_TEST_KILL_STEP"
	killsEnv    = "CAISSON_TEST_KILLS"
)

func envNumber(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// lifeOptions have the files of ordinary users given to subordinate ids, where there are any, by a process that dies with the program.
var lifeOptions = Options{Policy: Policy{Owners: OwnersMapped}}

// stages are what the program that is killed does, in this order. Each is done once only: what is done already is a success.
var stages = []struct {
	name string
	do   func(ctx context.Context, s *Store, ref string) error
}{
	{"pulled", func(ctx context.Context, s *Store, ref string) error {
		_, err := s.Pull(ctx, ref, PullOptions{RegistryOptions: anonymous})
		return err
	}},
	{"unpacked", func(ctx context.Context, s *Store, ref string) error {
		_, err := s.Unpack(ctx, ref, UnpackOptions{Durable: true})
		return err
	}},
	{"snapped", func(ctx context.Context, s *Store, ref string) error {
		all := map[string]SnapshotOptions{"best": {}, "copy": {Method: MethodCopy}}
		if mountsFiles() {
			all["files"] = SnapshotOptions{EROFS: true}
		}
		for name, o := range all {
			if _, err := s.NewSnapshot(ctx, name, ref, o); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
		return nil
	}},
	{"used", func(ctx context.Context, s *Store, _ string) error {
		sn, err := s.Snapshot(ctx, "best")
		if err != nil {
			return err
		}
		d, err := sn.Rootfs().Describe(ctx, rootfs.Env{UserNamespace: true, Unprivileged: os.Geteuid() != 0, IDMaps: s.maps.String()})
		if err == nil {
			err = os.WriteFile(filepath.Join(d.Upper.Dir, dirUpper, "new"), []byte("new"), 0o644)
		}
		if err = errors.Join(err, d.Close()); err != nil || !mountsFiles() {
			return err
		}
		if sn, err = s.Snapshot(ctx, "files"); err == nil {
			d, err = sn.Rootfs().Describe(ctx, rootfs.Env{})
		}
		return errors.Join(err, d.Close())
	}},
	{"committed", func(ctx context.Context, s *Store, ref string) error {
		at := time.Unix(1, 0)
		_, err := s.Write(ctx, "mine:1", ImageSpec{Base: ref, Created: &at, Layers: []Layer{UpperLayer(Tree{Path: s.snapshotDir("best") + "/" + dirUpper}, TreeOptions{Latest: at})}})
		return err
	}},
	{"sealed", func(ctx context.Context, s *Store, _ string) error {
		sn, err := s.Snapshot(ctx, "best")
		if err != nil {
			return err
		}
		return sn.Seal(ctx)
	}},
	{"unsnapped", func(ctx context.Context, s *Store, _ string) error {
		return errors.Join(missing(s.RemoveSnapshot(ctx, "copy")), missing(s.RemoveSnapshot(ctx, "files")))
	}},
	{"removed", func(ctx context.Context, s *Store, _ string) error { return missing(s.Remove(ctx, "mine:1")) }},
	{"collected", func(ctx context.Context, s *Store, _ string) error { _, err := s.GC(ctx); return err }},
}

// mountsFiles says that files of EROFS can be mounted.
var mountsFiles = sync.OnceValue(func() bool {
	missing, err := testutil.MissingErofs()
	return missing == "" && err == nil
})

func missing(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// roleLife is the program that is killed. What it says it has done is to last.
func roleLife() {
	ctx := context.Background()
	s, err := Open(os.Getenv("STORE"), lifeOptions)
	for _, st := range stages {
		if err != nil {
			break
		}
		fmt.Println("begin " + st.name)
		if err = st.do(ctx, s, os.Getenv("REF")); err == nil {
			fmt.Println(st.name)
		}
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("done")
}

// life is what a killed program left, and the registry it pulled from.
type life struct {
	t   testing.TB
	ref string
	dir string
}

func newLife(t testing.TB) *life {
	h, _ := newShelf(t)
	own := ownedBy(7, 8, 0o700)
	more := layer(t, dir("more"), file("more/f", "f"), dir("owned").with(own), file("owned/f", "f").with(own))
	img := putImage(t, h.s, "small", append(snapLayers(t), blob{gz(t, more), more})...)
	h.tag = img.Descriptor
	l := &life{t: t, ref: h.serve(t)}
	return l
}

// role is the program, on a new store.
func (l *life) role() *exec.Cmd {
	l.dir = filepath.Join(l.t.TempDir(), "store")
	return testutil.Role("life", "STORE="+l.dir, "REF="+l.ref)
}

// check opens the store as the next program does, and looks for all that was reported; then that program does the rest.
func (l *life) check(when, said string) (done bool) {
	t, ctx := l.t, context.Background()
	t.Helper()
	if strings.Contains(said, "error") {
		t.Fatalf("%s: %s", when, said)
	}
	has := func(what string) bool { return slices.Contains(strings.Split(said, "\n"), what) }
	s, err := Open(l.dir, lifeOptions)
	if err != nil {
		t.Fatalf("%s, after %q: %v", when, said, err)
	}
	defer removeTree(l.dir)
	l.lasting(ctx, s, when, has)
	half := func() []os.DirEntry {
		left, _ := os.ReadDir(s.path(dirIngest))
		return slices.DeleteFunc(left, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), partialPrefix) })
	}
	testutil.Eventually(testutil.Time(2*time.Minute), func() bool { // a process of the program's may be about to end, and have its locks
		if len(half()) > 0 {
			if s, err = Open(l.dir, lifeOptions); err != nil {
				t.Fatalf("%s: opened again: %v", when, err)
			}
		}
		return len(half()) == 0
	})
	for _, e := range half() {
		t.Errorf("%s: left %s", when, e.Name())
	}
	for _, st := range stages {
		if st.name == "used" && (has("sealed") || has("begin sealed")) || st.name == "committed" && has("begin removed") || st.name == "snapped" && has("begin unsnapped") {
			continue
		}
		if err := st.do(ctx, s, l.ref); err != nil {
			t.Errorf("%s, after %q: %s again: %v", when, said, st.name, err)
		}
	}
	if u := must[Usage](t)(s.Usage(ctx)); u.Images != 1 || u.Blobs != 6 || u.Layers < 4 || u.Snapshots != 1 || u.PartialBytes != 0 {
		t.Errorf("%s, after %q: %+v", when, said, u)
	}
	return has("done")
}

// lasting looks for what was reported.
func (l *life) lasting(ctx context.Context, s *Store, when string, has func(string) bool) {
	t := l.t
	t.Helper()
	bad := func(format string, args ...any) { t.Helper(); t.Errorf(when+": "+format, args...) }
	if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
		bad("%+v, %v", f, err)
	}
	if _, err := s.Get(ctx, l.ref); err != nil && has("pulled") {
		bad("pulled: %v", err)
	}
	if has("unpacked") {
		_, err := s.Unpack(ctx, l.ref, UnpackOptions{Progress: func(p Progress) {
			if !p.Cached {
				bad("unpacked: %s once more", p.Digest)
			}
		}})
		if err != nil {
			bad("unpacked: %v", err)
		}
	}
	names := []string{"best", "copy"}
	if mountsFiles() {
		names = append(names, "files")
	}
	for _, name := range names {
		sn, err := s.Snapshot(ctx, name)
		switch {
		case name != "best" && has("unsnapped"):
			if !errors.Is(err, ErrNotFound) {
				bad("unsnapped: %v", err)
			}
		case name != "best" && has("begin unsnapped"):
		case err != nil && has("snapped"):
			bad("snapped: %v", err)
		case err == nil:
			v, err := sn.Open(ctx)
			if err != nil {
				bad("%s: %v", name, err)
				continue
			}
			if _, err := os.Lstat(filepath.Join(s.snapshotDir(name), "upper/new")); name == "best" && has("used") && err != nil {
				bad("used: %v", err)
			}
			if info := must[SnapshotInfo](t)(sn.Info(ctx)); name == "best" && has("sealed") && !info.ReadOnly {
				bad("not sealed")
			}
			v.Close()
		}
	}
	if _, err := s.Get(ctx, "mine:1"); err != nil && has("committed") && !has("begin removed") || err == nil && has("removed") {
		bad("committed: %v", err)
	}
}

// runUntil runs the program, which is killed at its nth system call. It returns what the program said, and how many calls were counted.
func (l *life) runUntil(n int) (said string, calls int) {
	l.t.Helper()
	out, err := os.CreateTemp(l.t.TempDir(), "out")
	if err != nil {
		l.t.Fatal(err)
	}
	defer out.Close()
	cmd := l.role()
	cmd.Stdout = out
	if calls, err = testutil.KillThreadsAt(cmd, n); err != nil {
		l.t.Fatal(err)
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		l.t.Fatal(err)
	}
	return string(data), calls
}

// The program is killed at a system call, each time a later one. What it reported is there, nothing half done is left, and the next
// one goes on.
func TestKilledAtEverySystemCall(t *testing.T) {
	l := newLife(t)
	said, total := l.runUntil(math.MaxInt)
	if !l.check("not killed", said) {
		t.Fatalf("it does not get to its end: %s", said)
	}
	moments := 12
	if testing.Short() {
		moments = 6
	}
	step := envNumber(killStepEnv, max(total/moments, 1))
	runs, again := 0, 0
	for n := 1 + rand.IntN(step); ; n += step {
		said, calls := l.runUntil(n)
		l.check(fmt.Sprintf("killed at call %d", n), said)
		if calls < n {
			if again++; runs >= 3 || again > 5 || t.Failed() {
				break
			}
			// Threads that wait for each other had made many more calls the first time: the kills are closer together.
			step = max(calls/moments, 1)
			n = rand.IntN(step)
			continue
		}
		if runs++; t.Failed() {
			return
		}
	}
	if runs < 3 {
		t.Errorf("only %d kills", runs)
	}
	t.Logf("%d kills, %d of about %d system calls apart", runs, step, total)
}

// The same at random moments.
func TestKilledAtRandom(t *testing.T) {
	l := newLife(t)
	begin := time.Now()
	out, err := l.role().Output()
	whole := time.Since(begin)
	if err != nil || !l.check("not killed", string(out)) {
		t.Fatalf("%s %v", out, err)
	}
	kills, want := 0, envNumber(killsEnv, 4)
	for range 4 * want {
		if kills == want {
			break
		}
		cmd := l.role()
		var said strings.Builder
		cmd.Stdout = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(rand.Int64N(int64(whole)))
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if l.check(fmt.Sprint("killed after ", after), said.String()) {
			whole = max(whole*9/10, 10*time.Millisecond) // it was done before
		} else {
			kills++
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d kills", kills)
}
