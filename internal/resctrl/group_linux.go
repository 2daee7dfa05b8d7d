package resctrl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Group is where a container's tasks are: a class, and perhaps a monitoring group in it. What is recorded of it is enough for another
// program to undo it.
type Group struct {
	Root  string `json:"root"`            // where the file system is mounted
	Class string `json:"class,omitempty"` // a directory of it; "": the default class
	Made  bool   `json:"made,omitempty"`  // the class was made for the container
	Own   bool   `json:"own,omitempty"`   // and goes with it: it was not asked for by name, and a class with a name is only ever left
	Mon   string `json:"mon,omitempty"`   // the name of the monitoring group; "": none
	// Inode is that of a class that goes with the container, which kernfs gives to no other: one of that name may come to be another container's. 0: its program
	// was killed before it had recorded that, and before a task was in it.
	Inode uint64 `json:"inode,omitempty"`

	joined atomic.Bool // a task has been put in: nobody else takes the class
	made   *os.File    // the class, of who has made it and it goes with, locked as long as that program lives
}

// Make makes the group that a container with this id asks for. note is called before anything is made, with what is going to be; if it fails
// nothing is. It is called once more when a class of the container's own has been made, with what it is known by. A failure leaves a class that has a name, as it was if it was there, and nothing else; what could not be removed comes back
// with the error. ctx bounds the wait for others who use resctrl.
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
	if err = t.make(g, w); err == nil && g.made != nil {
		err = note(g)
	}
	if err != nil {
		if left := t.remove(g); left != nil {
			return g, errors.Join(err, left)
		}
		return nil, err
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
	if err := t.able(w); err != nil {
		return nil, err
	}
	if g.Mon != "" {
		if _, err := t.Stat(g.mon()); err == nil {
			return nil, fmt.Errorf("monitoring group %s of class of service %s: %w", id, "/"+g.Class, fs.ErrExist)
		}
	}
	_, err := t.Stat(g.file("tasks"))
	switch {
	case errors.Is(err, fs.ErrNotExist) && g.Class != "":
		if !g.Own && len(w.written()) == 0 {
			return nil, fmt.Errorf("%w %s does not exist, and nothing says what it may use: %w", ErrClass, g.Class, fs.ErrNotExist)
		}
		g.Made = true
		return g, nil
	case err != nil:
		return nil, err
	case g.Own:
		if !t.empty(g) {
			return nil, fmt.Errorf("%w %s has tasks of others: %w", ErrClass, g.Class, fs.ErrExist)
		}
		if t.held(g) {
			return nil, fmt.Errorf("%w %s is that of another container of this id, which is being started: %w", ErrClass, g.Class, fs.ErrExist)
		}
		g.Made = true
		return g, nil
	case w.compared() == "":
		return g, nil
	}
	now, err := t.read(g.file("schemata"))
	if line := differs(w.compared(), now, t.step); err == nil && line != "" {
		err = fmt.Errorf("%w %s exists, and %q does not hold for it: it has %q", ErrClass, "/"+g.Class, line, strings.Fields(now))
	}
	return g, err
}

// able refuses what this machine has not.
func (t *tree) able(w *Wish) error {
	if w.Monitor {
		if _, err := t.Stat("mon_groups"); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w monitoring groups", ErrIncapable)
		}
	}
	for _, text := range w.written() {
		for line := range strings.SplitSeq(text, "\n") {
			s, _ := parse(line)
			err := CheckName(s.resource)
			if err == nil {
				_, err = t.Stat("info/" + s.resource)
			}
			if err != nil {
				return fmt.Errorf("%w the resource %.100q", ErrIncapable, s.resource)
			}
		}
	}
	return nil
}

// step is how far apart the bandwidths are that a resource can have, to which the kernel rounds up; 1 if it does not.
func (t *tree) step(resource string) uint64 {
	if t.exact || CheckName(resource) != nil {
		return 1
	}
	s, err := t.read("info/" + resource + "/bandwidth_gran")
	n, nerr := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	if err != nil || nerr != nil || n == 0 {
		return 1
	}
	return n
}

func (t *tree) make(g *Group, w *Wish) (err error) {
	if g.Made {
		// One of its own that is there and empty is what is left of another container, with what that was allowed.
		if err := t.gone(g.Class); err != nil {
			g.Made = false
			return fmt.Errorf("remove the class of service %s, which is empty: %w", g.Class, t.explained(err))
		}
		if err := t.mkdir(g.Class); err != nil {
			g.Made = false
			return fmt.Errorf("make class of service %s: %w", g.Class, t.explained(err))
		}
		if g.Own {
			if err := t.hold(g); err != nil {
				return err
			}
		}
	} else if len(w.written()) > 0 {
		before, rerr := t.read(g.file("schemata"))
		if rerr != nil {
			return rerr
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, t.restore(g, before, w))
			}
		}()
	}
	for _, text := range w.written() {
		if err := t.write(g.file("schemata"), text+"\n"); err != nil {
			return fmt.Errorf("class of service %s: write %q: %w", "/"+g.Class, text, t.explained(err))
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

// restore writes what a class held, of the resources that the wish writes.
func (t *tree) restore(g *Group, before string, w *Wish) error {
	asked := map[string]bool{}
	for line := range strings.SplitSeq(strings.Join(w.written(), "\n"), "\n") {
		s, _ := parse(line)
		asked[s.resource] = true
	}
	var lines []string
	for line := range strings.Lines(before) {
		if s, ok := parse(line); ok && asked[s.resource] {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	for _, text := range pages(lines) {
		if err := t.write(g.file("schemata"), text+"\n"); err != nil {
			return fmt.Errorf("put back %q: %w", text, t.explained(err))
		}
	}
	return nil
}

// Assign puts a process, with all its threads, into the group. What it begins later is in it too. ctx bounds the wait for others who use resctrl, where
// it is the first.
func (g *Group) Assign(ctx context.Context, pid int) error {
	t, err := at(g.Root)
	if err != nil {
		return err
	}
	defer t.Close()
	if g.made != nil { // until a task is in it, an administrator may remove it, and who has the same id make one
		if !g.joined.Load() {
			if err := t.lock(ctx); err != nil {
				return err
			}
		}
		if !t.stillMade(g) {
			return fmt.Errorf("%w %s has been taken by another container of this id: %w", ErrClass, g.Class, fs.ErrExist)
		}
	}
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
	g.joined.Store(true)
	return nil
}

// Remove removes what was made for the container alone: its monitoring group, and the class that has its id. A class with a name stays, whoever made it,
// also of a container that has not come to be: others may join it at any time. It is nil for what is gone.
func (g *Group) Remove(ctx context.Context) error {
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
	return t.remove(g)
}

func (t *tree) remove(g *Group) error {
	if !t.stillMade(g) {
		return g.forget()
	}
	var faults []error
	if g.Mon != "" {
		faults = append(faults, t.gone(g.mon()))
	}
	if g.Made && g.Own {
		faults = append(faults, t.gone(g.Class))
	}
	if err := errors.Join(faults...); err != nil || g.made == nil {
		return err
	}
	return g.forget()
}

// Close lets go of a group that stays.
func (g *Group) Close() error {
	f := g.made
	g.made = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// forget lets go of a class that is gone: one of that name is another's.
func (g *Group) forget() error {
	g.Made, g.Mon = false, ""
	return g.Close()
}

// stillMade reports whether the class has not been removed since it was made, and another made under its name. What is gone says so itself.
func (t *tree) stillMade(g *Group) bool {
	is, err := t.Stat(g.Class)
	switch {
	case !g.Own || err != nil:
		return true
	case g.made != nil:
		was, err := g.made.Stat()
		return err != nil || os.SameFile(was, is)
	case g.Inode != 0:
		return inode(is) == g.Inode
	}
	return t.empty(g) && !t.held(g)
}

// hold opens the class that was made, notes what it is known by, and locks it until this program closes it, or ends.
func (t *tree) hold(g *Group) (err error) {
	if g.made, err = t.Open(g.Class); err != nil {
		return err
	}
	st, err := g.made.Stat()
	if err != nil {
		return err
	}
	g.Inode = inode(st)
	return os.NewSyscallError("flock", flock(g.made))
}

// held reports whether a program that lives has made the class.
func (t *tree) held(g *Group) bool {
	f, err := t.Open(g.Class)
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(f) == unix.EWOULDBLOCK
}

// flock locks a directory, unless that would take waiting.
func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EINTR {
			return err
		}
	}
}

func inode(i fs.FileInfo) uint64 {
	st, _ := i.Sys().(*syscall.Stat_t)
	if st == nil {
		return 0
	}
	return st.Ino
}

// gone removes a group; nil if there is none.
func (t *tree) gone(name string) error {
	if err := t.rmdir(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
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
	exact  bool // bandwidths are MB/s, which are not rounded
}

// System is how the kernel's file system is found and changed.
type System struct {
	Find  func() (dir string, mbps bool, err error) // mbps: it is mounted with mba_MBps
	Check func(*os.Root) error
	Mkdir func(root *os.Root, name string) error
	Write func(root *os.Root, name, text string) error
	Rmdir func(root *os.Root, name string) error
}

// Sys is the one in use. Tests replace it (package resctrltest), not several at once.
var Sys = System{
	Find:  findMount,
	Check: isResctrl,
	Mkdir: func(root *os.Root, name string) error { return root.Mkdir(name, 0o755) },
	Write: writeOnce,
	Rmdir: (*os.Root).Remove,
}

func (t *tree) mkdir(name string) error       { return Sys.Mkdir(t.Root, name) }
func (t *tree) write(name, text string) error { return Sys.Write(t.Root, name, text) }
func (t *tree) rmdir(name string) error       { return Sys.Rmdir(t.Root, name) }

// find opens the one that is mounted.
func find() (*tree, error) {
	dir, mbps, err := Sys.Find()
	if err != nil {
		return nil, err
	}
	t, err := at(dir)
	if err == nil {
		t.exact = mbps
	}
	return t, err
}

func findMount() (dir string, mbps bool, err error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", false, err
	}
	if m := mountedAt(string(b)); m.dir != "" {
		return m.dir, m.mbps, nil
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return "", false, err
	}
	if strings.Contains(string(known), "\tresctrl\n") {
		return "", false, fmt.Errorf("%w is mounted: mount -t resctrl resctrl /sys/fs/resctrl", ErrMissing)
	}
	return "", false, fmt.Errorf("%w in this kernel: it takes CONFIG_X86_CPU_RESCTRL (or the like of another architecture), and a processor that can share out its cache or its memory bandwidth", ErrMissing)
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
	if err := Sys.Check(root); err != nil {
		root.Close()
		return nil, err
	}
	return t, nil
}

func isResctrl(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if st.Type != unix.RDTGROUP_SUPER_MAGIC {
		return fmt.Errorf("%w at %s", ErrMissing, root.Name())
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
		if err = flock(f); err == nil {
			t.locked = f
			return nil
		}
		if err != unix.EWOULDBLOCK {
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

// writeOnce writes in one go, as the kernel wants it, to a file that there is.
func writeOnce(root *os.Root, name, text string) error {
	f, err := root.OpenFile(name, os.O_WRONLY, 0)
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

// explained adds what the kernel says about a refusal.
func (t *tree) explained(err error) error {
	if why, rerr := t.read("info/last_cmd_status"); rerr == nil && strings.TrimSpace(why) != "" && strings.TrimSpace(why) != "ok" {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(why))
	}
	return err
}
