package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
)

func openTemp(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "state"), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func none(*Entry) error { return nil }

func create(t *testing.T, d *Dir, id string) *Entry {
	t.Helper()
	e, err := d.Create(id, none)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func record(phase string) *Record {
	r := full()
	r.Phase = phase
	return r
}

func TestEntry(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	if err := e.Write(record(Stopped)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create("web", none); !errors.Is(err, ErrExists) {
		t.Errorf("while it is locked: %v", err)
	}
	e.Unlock()
	if _, err := d.Create("web", none); !errors.Is(err, ErrExists) {
		t.Errorf("second: %v", err)
	}
	if ids, err := d.List(); err != nil || len(ids) != 1 || ids[0] != "web" {
		t.Errorf("%v, %v", ids, err)
	}
	o, err := d.Open("web")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if r, err := o.Read(); err != nil || r.Phase != Stopped {
		t.Errorf("%+v, %v", r, err)
	}
	if err := o.Lock(false); err != nil {
		t.Fatal(err)
	}
	if err := e.Lock(false); !errors.Is(err, ErrBusy) {
		t.Errorf("locked twice: %v", err)
	}
	if err := o.Remove(); err != nil {
		t.Fatal(err)
	}
	o.Unlock()
	if err := e.Lock(false); !errors.Is(err, ErrNotFound) {
		t.Errorf("lock of what is removed: %v", err)
	}
	if _, err := d.Open("web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	for _, id := range []string{"", ".", "..", "a/b", ".hidden"} {
		if _, err := d.Open(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// What a killed program leaves while it makes a container does not keep its id.
func TestLeftoverOfCreationIsReplaced(t *testing.T) {
	d := openTemp(t)
	for name, leave := range map[string]func(*Entry){
		"empty":    func(*Entry) {},
		"creating": func(e *Entry) { check(t, e.Write(record(Creating))) },
		"torn":     func(e *Entry) { check(t, os.WriteFile(filepath.Join(e.Path(), tmpName), []byte("{"), 0o600)) },
		"lost":     func(e *Entry) { check(t, os.WriteFile(filepath.Join(e.Path(), recordName), make([]byte, 100), 0o600)) },
		"never released": func(e *Entry) {
			f, err := e.CreateStatus()
			check(t, err)
			f.Close()
			check(t, e.Write(record(Running)))
		},
	} {
		e := create(t, d, "web")
		leave(e)
		e.Close() // as if killed
		undone := 0
		again, err := d.Create("web", func(*Entry) error { undone++; return nil })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if recorded := name == "creating" || name == "never released"; recorded != (undone == 1) {
			t.Errorf("%s: undone %d times", name, undone)
		}
		check(t, again.Remove())
		again.Close()
	}
	e := create(t, d, "web")
	check(t, e.Write(record(Creating)))
	e.Close()
	if _, err := d.Create("web", func(*Entry) error { return unix.EBUSY }); !errors.Is(err, unix.EBUSY) {
		t.Errorf("an undo that fails: %v", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Of many that want one id, exactly one gets it, whatever the others leave.
func TestOneGetsTheID(t *testing.T) {
	d := openTemp(t)
	for range 30 {
		var got atomic.Int32
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				e, err := d.Create("web", none)
				if err != nil {
					if !errors.Is(err, ErrExists) {
						t.Error(err)
					}
					return
				}
				got.Add(1)
				if err := e.Write(record(Stopped)); err != nil {
					t.Error(err)
				}
				e.Close()
			})
		}
		wg.Wait()
		if got.Load() != 1 {
			t.Fatalf("%d have it", got.Load())
		}
		e, err := d.Open("web")
		check(t, err)
		check(t, e.Lock(false))
		check(t, e.Remove())
		e.Close()
	}
}

func TestUnsafeDirectoriesAndFiles(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	check(t, e.Write(record(Stopped)))
	e.Close()
	own := filepath.Join(d.Path(), "web")
	file := filepath.Join(own, recordName)

	check(t, os.Chmod(own, 0o755))
	if _, err := d.Open("web"); !errors.Is(err, journal.ErrUnsafeDir) {
		t.Errorf("open to others: %v", err)
	}
	check(t, os.Chmod(own, 0o700))
	read := func() error {
		e, err := d.Open("web")
		check(t, err)
		defer e.Close()
		_, err = e.Read()
		return err
	}
	check(t, read())
	check(t, os.Chmod(file, 0o666))
	if err := read(); !errors.Is(err, journal.ErrUnsafeDir) {
		t.Errorf("writable file: %v", err)
	}
	check(t, os.Remove(file))
	check(t, unix.Mkfifo(file, 0o600))
	if err := read(); !errors.Is(err, journal.ErrUnsafeDir) {
		t.Errorf("FIFO: %v", err)
	}
	check(t, os.Remove(file))
	check(t, os.Symlink("/etc/passwd", file))
	if err := read(); !errors.Is(err, unix.ELOOP) {
		t.Errorf("link: %v", err)
	}
	check(t, os.Symlink("web", filepath.Join(d.Path(), "link")))
	if _, err := d.Open("link"); !errors.Is(err, journal.ErrUnsafeDir) {
		t.Errorf("linked directory: %v", err)
	}
	if os.Getuid() == 0 {
		check(t, os.Chown(own, 12345, 12345))
		if _, err := d.Open("web"); !errors.Is(err, journal.ErrUnsafeDir) {
			t.Errorf("another's: %v", err)
		}
	}
	world := t.TempDir()
	check(t, os.Chmod(world, 0o777))
	if _, err := Open(filepath.Join(world, "state"), true); !errors.Is(err, journal.ErrUnsafeDir) {
		t.Errorf("a parent where others can write: %v", err)
	}
	if _, err := Open(filepath.Join(d.Path(), "no"), false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestListenAndDial(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	if _, err := e.Dial(t.Context()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("nobody: %v", err)
	}
	l, err := e.Listen()
	check(t, err)
	fd, err := e.Dial(t.Context())
	check(t, err)
	unix.Close(fd)
	l.Close()
	if _, err := e.Dial(t.Context()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("gone: %v", err)
	}
	l, err = e.Listen() // replaces the old one
	check(t, err)
	l.Close()
	check(t, e.Remove())
}

// A record can have megabytes, and its entry lives as long as the container.
func TestWriteKeepsNoRecordInMemory(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	defer e.Close()
	for range 2 {
		check(t, e.Write(record(Running)))
		if e.text != nil || e.parsed != nil {
			t.Error("what was read before the record was replaced is kept")
		}
		if _, err := e.Read(); err != nil {
			t.Fatal(err)
		}
	}
}

// What a caller changes of a record that was read is not what the next one reads.
func TestRecordsReadAreTheCallersOwn(t *testing.T) {
	dir, err := Open(filepath.Join(t.TempDir(), "state"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	e, err := dir.Create("web", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Write(full()); err != nil {
		t.Fatal(err)
	}
	read := func() (*Record, string) {
		r, err := e.Read()
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.Format()
		if err != nil {
			t.Fatal(err)
		}
		return r, string(b)
	}
	first, before := read()
	first.Phase, first.Result.Reason = Creating, "changed"
	for _, m := range []map[string]string{first.Labels, first.Cgroup, first.CgroupFrom} {
		for k := range m {
			m[k] = "/changed"
		}
	}
	first.Command[0], first.Things[0].Owner = "changed", "changed"
	for i := range first.Mounts {
		first.Mounts[i].Target = "changed"
	}
	if _, after := read(); after != before {
		t.Errorf("%s\nbecame\n%s", before, after)
	}
	if err := e.Write(first); err != nil {
		t.Fatal(err)
	}
	if _, after := read(); after == before {
		t.Error("what was written is not read")
	}
}

// Who waits for the lock while another goroutine lets go of the directory gets neither the lock nor the word that the container was removed, and
// touches no file that has got the number since.
func TestClosedWhileItIsWaitedFor(t *testing.T) {
	d := openTemp(t)
	holder := create(t, d, "web")
	if err := holder.Write(record(Running)); err != nil {
		t.Fatal(err)
	}
	e, err := d.Open("web")
	if err != nil {
		t.Fatal(err)
	}
	number := strconv.Itoa(int(e.own.Fd()))
	end := make(chan error, 1)
	go func() { end <- e.Lock(true) }()
	for until := time.Now().Add(time.Minute); !strings.Contains(waiting(t), "FLOCK") && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	e.Close()
	other, err := os.Open("/dev/null") // which would have the number
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if to, err := os.Readlink("/proc/self/fd/" + number); err != nil || to != e.Path() {
		t.Errorf("the number is in use, and is that of %q, %v", to, err)
	}
	holder.Unlock()
	if err := <-end; err != nil && !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
	for name, err := range map[string]error{"lock": e.Lock(true), "probe": e.Probe(), "write": e.Write(record(Stopped)), "remove": e.Remove()} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s of a closed one: %v", name, err)
		}
	}
	if err := holder.Lock(false); err != nil {
		t.Errorf("the lock is not free: %v", err)
	}
}

// waiting is what this program's threads wait for in flock(2), as the kernel lists them.
func waiting(t *testing.T) (lines string) {
	t.Helper()
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "->" && slices.Contains(f, strconv.Itoa(os.Getpid())) {
			lines += line
		}
	}
	return lines
}

// Who dials a program that accepts nobody waits until its context ends, also when as many wait as fit.
func TestDialWhereNobodyAccepts(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	l, err := e.ListenControl()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		fd, err := e.DialControl(canceled)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			break
		}
		defer unix.Close(fd)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { _, err := e.DialControl(ctx); over <- err }()
	cancel()
	select {
	case err := <-over:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(testutil.Time(time.Minute)):
		t.Fatal("its context has ended, and it waits")
	}
	go func() { // room comes
		fd, err := e.DialControl(context.Background())
		if err == nil {
			unix.Close(fd)
		}
		over <- err
	}()
	fd, _, err := unix.Accept4(int(l.Fd()), unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// What is left of a record that a failure of the machine has cut is none, unless its container may be there, or has a monitor.
func TestReadCutRecord(t *testing.T) {
	for name, test := range map[string]struct {
		boot, wish string
		tail       string
		none       bool
	}{
		"of an earlier boot":                {boot: "earlier", none: true},
		"of an earlier boot, and blocks":    {boot: "earlier", tail: "\x00\x00\x00", none: true},
		"of an earlier boot, and something": {boot: "earlier", tail: "]\n and more"},
		"of this boot":                      {},
		"with a monitor":                    {boot: "earlier", wish: "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			d := openTemp(t)
			e := create(t, d, "web")
			r := record(Running)
			if r.BootID = test.boot; r.BootID == "" {
				b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
				if err != nil {
					t.Fatal(err)
				}
				r.BootID = strings.TrimSpace(string(b))
			}
			if test.wish != "" {
				if err := e.WriteWish([]byte(test.wish)); err != nil {
					t.Fatal(err)
				}
			}
			b, err := r.Format()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(e.Path(), recordName)
			for _, n := range []int{len(b) / 2, len(b) - 3} {
				if err := os.WriteFile(path, append(b[:n:n], test.tail...), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := e.Read(); errors.Is(err, ErrNotFound) != test.none || errors.Is(err, ErrCorrupt) == test.none {
					t.Errorf("%d of %d bytes: %v", n, len(b), err)
				}
			}
		})
	}
}
