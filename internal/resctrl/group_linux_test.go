package resctrl

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/resctrl/resctrltest"
)

// faked is a directory in place of the file system.
type faked struct {
	*testing.T
	dir string
}

func newFake(t *testing.T) *faked {
	t.Helper()
	f := &faked{t, t.TempDir()}
	d, was := resctrltest.Dir(f.dir), Sys
	t.Cleanup(func() { Sys = was })
	Sys = System{Find: d.Find, Check: d.Check(was.Check), Mkdir: d.Mkdir, Write: d.Write, Rmdir: d.Rmdir}
	if err := d.Make(); err != nil {
		t.Fatal(err)
	}
	return f
}

// class makes one, as an administrator does.
func (f *faked) class(name, schemata string) {
	f.Helper()
	t, err := find()
	if err == nil {
		defer t.Close()
		err = errors.Join(t.mkdir(name), t.WriteFile(name+"/schemata", []byte(schemata), 0o644))
	}
	if err != nil {
		f.Fatal(err)
	}
}

func (f *faked) has(file, text string) {
	f.Helper()
	if b, err := os.ReadFile(filepath.Join(f.dir, file)); err != nil || string(b) != text {
		f.Errorf("%s is %q, not %q: %v", file, b, text, err)
	}
}

func (f *faked) exists(file string, want bool) {
	f.Helper()
	if _, err := os.Stat(filepath.Join(f.dir, file)); (err == nil) != want {
		f.Errorf("%s: %v", file, err)
	}
}

func (f *faked) make(w *Wish, id string) *Group {
	f.Helper()
	g, err := Make(f.Context(), w, id, func(*Group) error { return nil })
	if err != nil {
		f.Fatal(err)
	}
	return g
}

func (f *faked) refused(w *Wish, id string, is error) {
	f.Helper()
	if _, err := Make(f.Context(), w, id, func(*Group) error { return nil }); !errors.Is(err, is) {
		f.Errorf("%+v: %v", w, err)
	}
}

func (f *faked) remove(g *Group) {
	f.Helper()
	for range 2 { // once more is nothing
		if err := g.Remove(f.Context()); err != nil {
			f.Error(err)
		}
	}
}

// A container that names no class gets one, with what it may use in the order of the specification, and takes it along.
func TestOwnClass(t *testing.T) {
	f := newFake(t)
	g := f.make(&Wish{L3: "L3:0=f", MB: "MB:0=20", Lines: []string{"L2:0=3", "MB:0=30"}, Monitor: true}, "web")
	f.has("web/schemata", "L3:0=f\nMB:0=20\nL2:0=3\nMB:0=30\n")
	if err := g.Assign(t.Context(), os.Getpid()); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	for _, file := range []string{"web/tasks", "web/mon_groups/web/tasks"} {
		if b, err := os.ReadFile(filepath.Join(f.dir, file)); err != nil || !strings.HasPrefix(string(b), pid) {
			t.Errorf("%s: %q, %v", file, b, err)
		}
	}
	f.remove(g)
	f.exists("web", false)
	f.has("schemata", "") // the default class's
}

func TestNothingWritten(t *testing.T) {
	f := newFake(t)
	g := f.make(&Wish{}, "web")
	f.has("web/schemata", "")
	f.remove(g)
	f.exists("web", false)
}

// A class that has a name stays, whoever made it.
func TestNamedClass(t *testing.T) {
	f := newFake(t)
	g := f.make(&Wish{Class: "gold", L3: "L3:0=f"}, "web")
	f.remove(g)
	f.has("gold/schemata", "L3:0=f\n")

	g = f.make(&Wish{Class: "gold", L3: "L3:0=00F", Monitor: true}, "web")
	f.exists("gold/mon_groups/web", true)
	f.refused(&Wish{Class: "gold", Monitor: true}, "web", fs.ErrExist)
	f.remove(g)
	f.exists("gold/mon_groups/web", false)
	f.exists("gold", true)

	f.refused(&Wish{Class: "gold", L3: "L3:0=f0"}, "web", ErrClass)
	f.refused(&Wish{Class: "gold", MB: "MB:0=10"}, "web", ErrClass)
	f.refused(&Wish{Class: "none"}, "web", fs.ErrNotExist)
	f.refused(&Wish{Class: "none", Monitor: true}, "web", ErrClass)
	f.exists("none", false)
}

func TestDefaultClass(t *testing.T) {
	f := newFake(t)
	g := f.make(&Wish{Class: "/", Monitor: true}, "web")
	f.exists("mon_groups/web", true)
	f.has("schemata", "")
	f.remove(g)
	f.exists("mon_groups/web", false)
	f.refused(&Wish{Class: "/", L3: "L3:0=f"}, "web", ErrClass)
	f.exists("tasks", true)
}

// A class with the container's id is made anew if nobody is in it, and is another's otherwise.
func TestClassOfSameName(t *testing.T) {
	f := newFake(t)
	f.class("web", "L3:0=f\n")
	g := f.make(&Wish{L3: "L3:0=f0"}, "web")
	f.has("web/schemata", "L3:0=f0\n")
	if err := g.Assign(t.Context(), os.Getpid()); err != nil {
		t.Fatal(err)
	}
	f.refused(&Wish{L3: "L3:0=f0"}, "web", ErrClass)
	f.refused(&Wish{}, "web", fs.ErrExist)
	f.has("web/schemata", "L3:0=f0\n")
	f.remove(g)
	f.exists("web", false)
}

// Of what fails nothing stays but a class with a name, into which others may have come.
func TestUndo(t *testing.T) {
	f := newFake(t)
	no := errors.New("no")
	if _, err := Make(t.Context(), &Wish{}, "web", func(*Group) error { return no }); !errors.Is(err, no) {
		t.Error(err)
	}
	f.exists("web", false)
	f.remove(f.make(&Wish{Class: "gold", L3: "L3:0=f"}, "web"))
	f.exists("gold", true)
}

// What could not be removed after a failure comes back with the error.
func TestLeft(t *testing.T) {
	f := newFake(t)
	no, stays := errors.New("no"), errors.New("stays")
	Sys.Write = func(*os.Root, string, string) error { return no }
	f.refused(&Wish{L3: "L3:0=f"}, "web", no)
	f.exists("web", false)
	rmdir := Sys.Rmdir
	Sys.Rmdir = func(root *os.Root, name string) error {
		if _, err := root.Lstat(name); err != nil {
			return err
		}
		return stays
	}
	g, err := Make(t.Context(), &Wish{L3: "L3:0=f"}, "web", func(*Group) error { return nil })
	if g == nil || !errors.Is(err, no) || !errors.Is(err, stays) {
		t.Fatalf("%v, %v", g, err)
	}
	f.exists("web", true)
	Sys.Rmdir = rmdir
	f.remove(g)
	f.exists("web", false)
}

// A class that was there is what it was when something fails.
func TestPutBack(t *testing.T) {
	f := newFake(t)
	f.class("gold", "    MB:0=100;1= 20\n    L3:0=f;1=f\n    L2:0=1\n")
	no := errors.New("no")
	was := Sys.Mkdir
	Sys.Mkdir = func(*os.Root, string) error { return no }
	f.refused(&Wish{Class: "gold", Lines: []string{"L3:0=1", "MB:0=30"}, Monitor: true}, "web", no)
	Sys.Mkdir = was
	f.has("gold/schemata", "    MB:0=100;1= 20\n    L3:0=f;1=f\n    L2:0=1\nL3:0=1\nMB:0=30\nMB:0=100;1= 20\nL3:0=f;1=f\n")
}

// The kernel rounds bandwidths up, unless they are MB/s.
func TestBandwidth(t *testing.T) {
	f := newFake(t)
	if err := os.WriteFile(f.dir+"/info/MB/bandwidth_gran", []byte("10\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.class("gold", "MB:0=30;1= 100\n")
	Sys.Write = func(*os.Root, string, string) error { return nil } // as what is written is what it had
	f.make(&Wish{Class: "gold", MB: "MB:0=25;1=100"}, "web")
	f.refused(&Wish{Class: "gold", MB: "MB:0=31"}, "web", ErrClass)
	f.refused(&Wish{Class: "gold", MB: "MB:0=20"}, "web", ErrClass)
	find := Sys.Find
	Sys.Find = func() (string, bool, error) {
		dir, _, err := find()
		return dir, true, err
	}
	f.refused(&Wish{Class: "gold", MB: "MB:0=25"}, "web", ErrClass)
}

// What the machine has not is said before anything is made.
func TestIncapable(t *testing.T) {
	f := newFake(t)
	for _, line := range []string{"SMBA:0=10", "info:0=1", "../L3:0=1"} {
		f.refused(&Wish{Lines: []string{"L3:0=f", line}}, "web", ErrIncapable)
	}
	if err := os.Remove(f.dir + "/mon_groups"); err != nil {
		t.Fatal(err)
	}
	f.refused(&Wish{Monitor: true}, "web", ErrIncapable)
	f.exists("web", false)
}

// One write has at most what the kernel takes at once, and one line break at its end.
func TestWrites(t *testing.T) {
	f := newFake(t)
	var sizes []int
	write := Sys.Write
	Sys.Write = func(root *os.Root, name, text string) error {
		sizes = append(sizes, len(text))
		return write(root, name, text)
	}
	line := "L2:0=" + strings.Repeat("0", 1360-6)
	f.make(&Wish{L3: "L3:0=f\n", Lines: []string{line, line, line, line}}, "web")
	f.has("web/schemata", "L3:0=f\n"+strings.Repeat(line+"\n", 4))
	if want := []int{7, 3 * 1360, 1360}; !slices.Equal(sizes, want) {
		t.Errorf("%v, want %v", sizes, want)
	}
}

func TestNames(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"..", "info", "a/b", "mon_groups"} {
		if _, err := Make(t.Context(), &Wish{Class: name, L3: "L3:0=f"}, "web", func(*Group) error { return nil }); err == nil {
			t.Errorf("%q is a class", name)
		}
		if err := (&Group{Root: f.dir, Class: name, Made: true, Own: true}).Remove(t.Context()); err == nil {
			t.Errorf("%q was removed", name)
		}
	}
	f.exists("info", true)
}

// Others who hold the lock are waited for.
func TestLock(t *testing.T) {
	f := newFake(t)
	dir, err := os.Open(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Make(ctx, &Wish{}, "web", func(*Group) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	dir.Close()
	f.make(&Wish{}, "web")
}

// What is not a resctrl file system is not written to, and one that is gone has nothing to undo.
func TestAnotherFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/web", 0o755); err != nil {
		t.Fatal(err)
	}
	g := &Group{Root: dir, Class: "web", Made: true, Own: true}
	if err := g.Assign(t.Context(), os.Getpid()); !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/web"); err != nil {
		t.Error(err)
	}
	if err := (&Group{Root: dir + "/gone", Class: "web", Made: true}).Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// A class that has a container's id is not taken by another of the same id while the container is being started.
func TestClassBeingMade(t *testing.T) {
	f := newFake(t)
	first := f.make(&Wish{L3: "L3:0=f"}, "web")
	f.refused(&Wish{L3: "L3:0=f0"}, "web", ErrClass)
	f.refused(&Wish{}, "web", fs.ErrExist)
	before := &Group{Root: f.dir, Class: "web", Made: true, Own: true} // noted by one that was killed before it had made one
	f.remove(before)
	f.has("web/schemata", "L3:0=f\n")
	if err := first.Assign(t.Context(), os.Getpid()); err != nil {
		t.Error(err)
	}
	f.refused(&Wish{}, "web", ErrClass)
	if err := first.Close(); err != nil { // it outlives its program
		t.Error(err)
	}
	f.remove(before)
	f.exists("web", true)
	f.remove(recorded(t, first))
	f.exists("web", false)
}

// What a killed program has left is taken by the next container of the same id, and who recovers what was recorded leaves that one's alone.
func TestClassTakenAfterKill(t *testing.T) {
	f := newFake(t)
	first := f.make(&Wish{L3: "L3:0=f"}, "web")
	pin, err := os.Open(f.dir + "/web") // so that no other has its inode, as with the kernel's own
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Close()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := f.make(&Wish{L3: "L3:0=f0"}, "web")
	f.remove(recorded(t, first))
	f.has("web/schemata", "L3:0=f0\n")
	if err := second.Assign(t.Context(), os.Getpid()); err != nil {
		t.Error(err)
	}
	f.remove(recorded(t, first))
	f.has("web/schemata", "L3:0=f0\n")
	f.remove(second)
	f.exists("web", false)
}

// What is recorded says which class it is, before a task is in it.
func TestNotes(t *testing.T) {
	f := newFake(t)
	var notes []uint64
	g, err := Make(t.Context(), &Wish{}, "web", func(g *Group) error {
		notes = append(notes, g.Inode)
		return nil
	})
	if err != nil || len(notes) != 2 || notes[0] != 0 || notes[1] == 0 || notes[1] != g.Inode {
		t.Fatalf("%v, %v", notes, err)
	}
	f.remove(g)
	no := errors.New("no")
	if _, err := Make(t.Context(), &Wish{}, "web", func(g *Group) error {
		if g.Inode != 0 {
			return no
		}
		return nil
	}); !errors.Is(err, no) {
		t.Error(err)
	}
	f.exists("web", false)
}

// recorded is a group as another program reads it.
func recorded(t *testing.T, g *Group) *Group {
	t.Helper()
	b, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	out := &Group{}
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}
