package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// arena is a root with an attacker in it and a directory beside it that nobody may reach.
//
//	outside/secret            "outside"
//	root/secret               "inside"
//	root/d/secret, root/d/e/f ...
//	root/l -> ../outside, root/m -> /…/outside, exchanged with root/d again and again
type arena struct {
	dir, outside string
	root         *Root
}

const attackTime = 700 * time.Millisecond

func newArena(t *testing.T, walk bool) *arena {
	t.Helper()
	base := t.TempDir()
	a := &arena{dir: filepath.Join(base, "root"), outside: filepath.Join(base, "outside")}
	for _, d := range []string{a.dir, a.outside, a.dir + "/d", a.dir + "/d/e", a.dir + "/d/e/f", a.dir + "/away", a.outside + "/e", a.outside + "/e/f"} {
		mkdir(t, d)
	}
	for _, p := range []string{"/secret", "/d/secret", "/d/e/secret", "/d/e/f/secret", "/away/secret"} {
		write("inside")(t, a.dir+p)
	}
	for _, p := range []string{"/secret", "/e/secret", "/e/f/secret"} {
		write("outside")(t, a.outside+p)
	}
	symlink(t, "../outside", a.dir+"/l")
	symlink(t, a.outside, a.dir+"/m")
	symlink(t, "../../outside/secret", a.dir+"/d/link")
	root, err := OpenRoot(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	root.noOpenat2 = walk
	a.root = root
	return a
}

// attack exchanges directories and links until the returned func is called.
func (a *arena) attack(t *testing.T) (stop func()) {
	t.Helper()
	// The attacker sits in the root as a process of the container does, and cannot reach outside itself.
	inside, err := OpenRoot(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, swap := range [][2]string{{"/d", "/l"}, {"/d/e", "/m"}, {"/d/e/f", "/away"}, {"/secret", "/d/link"}} {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				inside.twoNames("exchange", swap[0], swap[1], func(fd int, f string, td int, t string) error {
					return unix.Renameat2(fd, f, td, t, unix.RENAME_EXCHANGE)
				})
				time.Sleep(time.Microsecond)
			}
		})
	}
	return func() { close(done); wg.Wait(); inside.Close() }
}

// untouched fails if anything outside the root was changed.
func (a *arena) untouched(t *testing.T) {
	t.Helper()
	var got []string
	err := filepath.WalkDir(a.outside, func(p string, _ fs.DirEntry, err error) error {
		got = append(got, strings.TrimPrefix(p, a.outside))
		return err
	})
	if err != nil || strings.Join(got, " ") != " /e /e/f /e/f/secret /e/secret /secret" {
		t.Errorf("outside is now %q, %v", got, err)
	}
	for _, p := range []string{"/secret", "/e/secret", "/e/f/secret"} {
		if data, _ := os.ReadFile(a.outside + p); string(data) != "outside" {
			t.Errorf("outside%s is now %q", p, data)
		}
	}
}

var attackPaths = []string{
	"secret", "d/secret", "l/secret", "m/secret", "d/e/secret", "d/e/f/secret", "d/e/f/../../secret", "d/e/f/../../../secret",
	"d/e/../../../../outside/secret", "away/../d/e/f/../../../../outside/secret", "d/link", "l/e/f/../../../outside/secret",
}

// An attacker who exchanges directories and links never gets an open to reach a file outside; the same paths
// joined and opened by name do reach one, which shows that the attack is real.
func TestAttackOpen(t *testing.T) {
	late := testutil.Time(5 * time.Minute) // for all attacks together
	if end, ok := t.Deadline(); ok {
		late = min(late, time.Until(end)/2)
	}
	end := time.Now().Add(late)
	for _, walk := range []bool{false, true} {
		a := newArena(t, walk)
		stop := a.attack(t)
		opened, escaped := 0, 0
		// On a busy machine it may take longer to see either.
		for start := time.Now(); time.Since(start) < attackTime || (opened == 0 || escaped == 0) && time.Now().Before(end); {
			for _, p := range attackPaths {
				if data, err := os.ReadFile(a.dir + "/" + p); err == nil && string(data) == "outside" {
					escaped++
				}
				began := time.Now()
				data, err := a.root.ReadFile(p, 100)
				if d := time.Since(began); d > testutil.Time(time.Minute) {
					t.Errorf("open of %s took %v", p, d)
				}
				if err == nil {
					opened++
				}
				if err == nil && string(data) != "inside" {
					t.Fatalf("walk %v: %s reached %q", walk, p, data)
				}
				if err != nil && !expectedInAttack(err) {
					t.Errorf("walk %v: %s: %v", walk, p, err)
				}
			}
		}
		stop()
		a.untouched(t)
		if opened == 0 || escaped == 0 {
			t.Errorf("walk %v: no proof: %d opens succeeded, %d opens by name escaped", walk, opened, escaped)
		}
	}
}

func expectedInAttack(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EAGAIN, unix.EISDIR, unix.EEXIST, unix.ENOTEMPTY, unix.EBUSY, unix.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return errors.Is(err, ErrNotRegular)
}

// Nor does anything that changes the tree change something outside.
func TestAttackChange(t *testing.T) {
	for _, walk := range []bool{false, true} {
		a := newArena(t, walk)
		stop := a.attack(t)
		host := t.TempDir()
		mkdir(t, host+"/src")
		mkdir(t, host+"/src/e")
		write("copied")(t, host+"/src/e/new")
		out, err := os.Open(host)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		r, n := a.root, 0
		for start := time.Now(); time.Since(start) < attackTime; n++ {
			for what, err := range map[string]error{
				"mkdirall": r.MkdirAll("d/e/f/made/x", 0o755),
				"write":    r.WriteFile("d/e/f/made/file", []byte("x"), 0o644),
				"create":   r.WriteFile("l/created", []byte("x"), 0o644),
				"symlink":  r.Symlink("/", "d/e/sym"),
				"chmod":    r.Chmod("d/e/f", 0o755),
				"remove":   r.Remove("d/e/sym"),
				"rename":   r.Rename("d/e/f/made/file", "away/file"),
				"copy in":  CopyIn(t.Context(), r, "d/e", host+"/src", CopyOptions{}),
				"copy out": CopyOut(t.Context(), r, "d", out, "out", CopyOptions{}),
				"all":      r.RemoveAll("d/e/f/made"),
			} {
				if err != nil && !expectedInAttack(err) {
					t.Errorf("walk %v: %s: %v", walk, what, err)
				}
			}
			if n%10 == 0 {
				noSecrets(t, host+"/out")
				os.RemoveAll(host + "/out")
			}
		}
		stop()
		a.untouched(t)
		noSecrets(t, host+"/out")
		if n == 0 {
			t.Error("nothing was tried")
		}
	}
}

// noSecrets fails if a copy that came out of the root holds what is outside of it.
func noSecrets(t *testing.T, dir string) {
	t.Helper()
	filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if data, _ := os.ReadFile(p); strings.Contains(string(data), "outside") {
				t.Errorf("%s holds %q", p, data)
			}
		}
		return nil
	})
}

// RemoveAll in which an attacker exchanges directories with links never removes outside.
func TestAttackRemoveAll(t *testing.T) {
	for _, walk := range []bool{false, true} {
		for range 20 {
			a := newArena(t, walk)
			stop := a.attack(t)
			for _, p := range []string{"d", "l", "m", "away"} {
				if err := a.root.RemoveAll(p); err != nil && !expectedInAttack(err) {
					t.Errorf("walk %v: %v", walk, err)
				}
			}
			stop()
			a.untouched(t)
		}
	}
}

// Use and Close at once do not reach whatever gets the descriptor's number next.
func TestCloseWhileOpening(t *testing.T) {
	a := newArena(t, true)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				f, err := a.root.Open("secret")
				if err != nil {
					if !errors.Is(err, fs.ErrClosed) {
						t.Error(err)
					}
					return
				}
				data, _ := io.ReadAll(f)
				f.Close()
				if string(data) != "inside" {
					t.Errorf("got %q", data)
				}
			}
		})
	}
	time.Sleep(2 * time.Millisecond)
	a.root.Close()
	wg.Wait()
}

// The moment between a look at a name and its use, which a race seldom meets: the name is a link by then.
func TestSwappedBetween(t *testing.T) {
	a := newArena(t, true)
	dir := openDir(t, a.dir)
	fd := int(dir.Fd())
	mount, err := mountOf(fd, "")
	if err != nil {
		t.Fatal(err)
	}
	rm := &remover{top: fd, mount: mount}
	if err := rm.empty(fd, "m", 0); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		t.Errorf("emptied a link: %v", err)
	}
	a.untouched(t)
	for name, flags := range map[string]int{"m": unix.O_DIRECTORY, "d/link": 0} {
		if f, _, err := (&copier{}).openSource(fd, name, flags); err == nil {
			f.Close()
			t.Errorf("opened the link %s as a source", name)
		}
	}
	c, err := newCopier(t.Context(), "test", CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.putDir(fd, "m", attrs{}, nil, func(int) error { return nil }); err == nil {
		t.Error("took a link for the directory to fill")
	}
}
