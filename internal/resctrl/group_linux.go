package resctrl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is where a container's tasks are: a class, and perhaps a monitoring group in it. What is recorded of it is enough for another
// program to undo it.
type Group struct {
	Root  string `json:"root"`            // where the file system is mounted
	Class string `json:"class,omitempty"` // a directory of it; "": the default class
	Made  bool   `json:"made,omitempty"`  // the class was made for the container
	Own   bool   `json:"own,omitempty"`   // and goes with it: it was not asked for by name
	Mon   string `json:"mon,omitempty"`   // the name of the monitoring group; "": none
}

// Make makes the group that a container with this id asks for. note is called before anything is made, with what is going to be; if it fails
// nothing is. A failure leaves nothing behind. ctx bounds the wait for others who use resctrl.
func Make(ctx context.Context, w *Wish, id string, note func(*Group) error) (*Group, error) {
	t, err := find()
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if err := t.lock(ctx); err != nil {
		return nil, err
	}
	g, err := t.plan(w, id)
	if err == nil {
		err = note(g)
	}
	if err != nil {
		return nil, err
	}
	if err := t.make(g, w); err != nil {
		return nil, errors.Join(err, t.remove(g, true))
	}
	return g, nil
}

// plan looks which class it is to be.
func (t *tree) plan(w *Wish, id string) (*Group, error) {
	g := &Group{Root: t.path, Class: w.Class}
	switch w.Class {
	case "":
		g.Class, g.Own = id, true
	case "/":
		g.Class = ""
	}
	if w.Monitor {
		g.Mon = id
	}
	for _, name := range fields(g.Class, g.Mon) {
		if err := CheckName(name); err != nil {
			return nil, err
		}
	}
	if g.Mon != "" {
		if _, err := t.Stat(g.mon()); err == nil {
			return nil, fmt.Errorf("monitoring group %s of %w %s: %w", id, ErrClass, "/"+g.Class, fs.ErrExist)
		}
	}
	_, err := t.Stat(g.file("tasks"))
	if errors.Is(err, fs.ErrNotExist) && g.Class != "" {
		if !g.Own && len(w.written()) == 0 {
			return nil, fmt.Errorf("%w %s does not exist, and nothing says what it may use: %w", ErrClass, g.Class, fs.ErrNotExist)
		}
		g.Made = true
		return g, nil
	}
	if err != nil || w.compared() == "" {
		return g, err
	}
	now, err := t.read(g.file("schemata"))
	if line := differs(w.compared(), now); err == nil && line != "" {
		err = fmt.Errorf("%w %s exists, and %q does not hold for it: it has %q", ErrClass, "/"+g.Class, line, strings.Fields(now))
	}
	return g, err
}

func (t *tree) make(g *Group, w *Wish) error {
	if g.Made {
		if err := t.mkdir(g.Class); err != nil {
			g.Made = false
			return fmt.Errorf("make %w %s: %w", ErrClass, g.Class, t.explained(err))
		}
	}
	for _, text := range w.written() {
		if err := t.write(g.file("schemata"), text+"\n"); err != nil {
			return fmt.Errorf("%w %s: write %q: %w", ErrClass, "/"+g.Class, text, t.explained(err))
		}
	}
	if g.Mon == "" {
		return nil
	}
	if err := t.mkdir(g.mon()); err != nil {
		g.Mon = ""
		return fmt.Errorf("make monitoring group: %w", t.explained(err))
	}
	return nil
}

// Assign puts a process, with all its threads, into the group. What it begins later is in it too.
func (g *Group) Assign(pid int) error {
	t, err := at(g.Root)
	if err != nil {
		return err
	}
	defer t.Close()
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	files := []string{g.file("tasks")}
	if g.Mon != "" { // one of the class, which they have to be in
		files = append(files, path.Join(g.mon(), "tasks"))
	}
	for _, f := range files {
		for _, task := range tasks {
			if err := t.write(f, task.Name()+"\n"); err != nil {
				return fmt.Errorf("put task %s into %s: %w", task.Name(), path.Join(g.Root, f), t.explained(err))
			}
		}
	}
	return nil
}

// Remove removes what was made for the container alone. It is nil for what is gone.
func (g *Group) Remove(ctx context.Context) error { return g.undo(ctx, false) }

// Undo is Remove for a container that has not come to be: a class by name that was made for it goes too, unless others are in it.
func (g *Group) Undo(ctx context.Context) error { return g.undo(ctx, true) }

func (g *Group) undo(ctx context.Context, failed bool) error {
	if !g.Made && g.Mon == "" {
		return nil
	}
	for _, name := range fields(g.Class, g.Mon) { // of a record
		if err := CheckName(name); err != nil {
			return err
		}
	}
	t, err := at(g.Root)
	if errors.Is(err, ErrMissing) { // it went with all groups
		return nil
	}
	if err != nil {
		return err
	}
	defer t.Close()
	if err := t.lock(ctx); err != nil {
		return err
	}
	return t.remove(g, failed)
}

func (t *tree) remove(g *Group, failed bool) error {
	var faults []error
	if g.Mon != "" {
		faults = append(faults, t.rmdir(g.mon()))
	}
	if g.Made && (g.Own || failed && t.empty(g)) {
		faults = append(faults, t.rmdir(g.Class))
	}
	return errors.Join(slices.DeleteFunc(faults, func(err error) bool { return errors.Is(err, fs.ErrNotExist) })...)
}

func (t *tree) empty(g *Group) bool {
	s, err := t.read(g.file("tasks"))
	return err == nil && strings.TrimSpace(s) == ""
}

func (g *Group) file(name string) string { return path.Join(".", g.Class, name) }
func (g *Group) mon() string             { return g.file("mon_groups/" + g.Mon) }

// tree is a mounted resctrl file system. Nothing outside it is reached, whatever a name says.
type tree struct {
	*os.Root
	path   string
	locked *os.File
}

// find opens the one that is mounted.
func find() (*tree, error) {
	if fake != "" {
		return at(fake)
	}
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	if p := mountedAt(string(b)); p != "" {
		return at(p)
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(known), "\tresctrl\n") {
		return nil, fmt.Errorf("%w is mounted: mount -t resctrl resctrl /sys/fs/resctrl", ErrMissing)
	}
	return nil, fmt.Errorf("%w in this kernel: it takes CONFIG_X86_CPU_RESCTRL (or the like of another architecture), and a processor that can share out its cache or its memory bandwidth", ErrMissing)
}

// at opens the one that is mounted there.
func at(dir string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w at %s", ErrMissing, dir)
	}
	if err != nil {
		return nil, err
	}
	t := &tree{Root: root, path: dir}
	if err := t.check(); err != nil {
		root.Close()
		return nil, err
	}
	return t, nil
}

func (t *tree) check() error {
	if t.path == fake {
		return nil
	}
	f, err := t.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if st.Type != unix.RDTGROUP_SUPER_MAGIC {
		return fmt.Errorf("%w at %s", ErrMissing, t.path)
	}
	return nil
}

func (t *tree) Close() {
	if t.locked != nil {
		t.locked.Close()
	}
	t.Root.Close()
}

// lockPatience bounds the wait for others where the context does not.
const lockPatience = 10 * time.Second

// lock keeps others out who make groups, as the kernel's documentation has it: flock(2) on the root directory.
func (t *tree) lock(ctx context.Context) error {
	f, err := t.Open(".")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			t.locked = f
			return nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return fmt.Errorf("another program has locked %s: %w", t.path, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (t *tree) mkdir(name string) error {
	err := t.Mkdir(name, 0o755)
	if err == nil && fake != "" {
		err = errors.Join(t.populate(name), t.Chmod(name, 0o755))
	}
	return err
}

// write writes in one go, as the kernel wants it, to a file that there is.
func (t *tree) write(name, text string) error {
	how := os.O_WRONLY
	if fake != "" {
		how |= os.O_APPEND
	}
	f, err := t.OpenFile(name, how, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// read reads at most a megabyte, which is more than the file of any machine.
func (t *tree) read(name string) (string, error) {
	f, err := t.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	return string(b), err
}

func (t *tree) rmdir(name string) error {
	if fake != "" {
		if _, err := t.Lstat(name); err != nil {
			return err
		}
		return t.RemoveAll(name)
	}
	return t.Remove(name)
}

// explained adds what the kernel says about a refusal.
func (t *tree) explained(err error) error {
	if why, rerr := t.read("info/last_cmd_status"); rerr == nil && strings.TrimSpace(why) != "" && strings.TrimSpace(why) != "ok" {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(why))
	}
	return err
}
