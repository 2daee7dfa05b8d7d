package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const childEnv = "CAISSON_JOURNAL_TEST_DIR"

// TestMain makes the test binary a program that owns things and waits to be killed, when the environment says so.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		own(dir)
	}
	os.Exit(m.Run())
}

func own(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		panic(err)
	}
	j, err := Open(d)
	if err != nil {
		panic(err)
	}
	var first uint64
	for i := range 4 {
		id, err := j.Add("test.thing", 1, fmt.Appendf(nil, `{"n":%d}`, i))
		if err != nil {
			panic(err)
		}
		if i == 0 {
			first = id
		}
	}
	if err := j.Done(first); err != nil {
		panic(err)
	}
	if _, err := j.Add("test.other", 2, []byte(`{}`)); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
}

// openTemp opens a fresh directory for journals.
func openTemp(t testing.TB) *os.File {
	t.Helper()
	d, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newJournal(t testing.TB, d *os.File) *Journal {
	t.Helper()
	j, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func files(t testing.TB, d *os.File) []string {
	t.Helper()
	l, err := os.ReadDir(d.Name())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range l {
		names = append(names, e.Name())
	}
	return names
}

func startOwner(t *testing.T, d *os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+d.Name())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if n, err := out.Read(make([]byte, 6)); n == 0 {
		t.Fatal(err)
	}
	return cmd
}

func TestRecoverAfterKill(t *testing.T) {
	d := openTemp(t)
	cmd := startOwner(t, d)
	var order []string
	things := map[string]Undoer{"test.thing": UndoFunc(func(_ context.Context, v int, data []byte) error {
		order = append(order, fmt.Sprintf("%d%s", v, data))
		return nil
	})}
	if n, err := Recover(t.Context(), d, things); n != 0 || err != nil {
		t.Fatalf("a living process was recovered: %d, %v", n, err)
	}
	cmd.Process.Kill()
	cmd.Wait()

	n, err := Recover(t.Context(), d, things)
	if got, want := strings.Join(order, " "), `1{"n":3} 1{"n":2} 1{"n":1}`; n != 3 || got != want {
		t.Errorf("undone %d: %s, want %s", n, got, want)
	}
	var unclaimed *UnclaimedError
	if !errors.As(err, &unclaimed) || unclaimed.Entry.Owner != "test.other" || unclaimed.Entry.Version != 2 {
		t.Errorf("err = %v", err)
	}
	if len(files(t, d)) != 1 {
		t.Errorf("the unclaimed entry was not kept: %v", files(t, d))
	}
	// What is undone is not undone again, and the last entry takes the file with it.
	others := map[string]Undoer{"test.other": UndoFunc(func(context.Context, int, []byte) error { return nil })}
	if n, err := Recover(t.Context(), d, others); n != 1 || err != nil || len(files(t, d)) != 0 {
		t.Errorf("%d, %v, %v", n, err, files(t, d))
	}
}

func TestRecoverKeepsWhatFails(t *testing.T) {
	d := openTemp(t)
	j := newJournal(t, d)
	for range 2 {
		if _, err := j.Add("a", 1, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	answer := func(err error) map[string]Undoer {
		return map[string]Undoer{"a": UndoFunc(func(context.Context, int, []byte) error { return err })}
	}
	_, err := Recover(t.Context(), d, answer(unix.EBUSY))
	var undo *UndoError
	if !errors.As(err, &undo) || !errors.Is(err, unix.EBUSY) {
		t.Errorf("err = %v", err)
	}
	if n, err := Recover(t.Context(), d, answer(ErrKeep)); n != 0 || err != nil || len(files(t, d)) != 1 {
		t.Errorf("kept: %d, %v, %v", n, err, files(t, d))
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := Recover(canceled, d, answer(nil)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %d, %v", n, err)
	}
	if n, err := Recover(t.Context(), d, answer(nil)); n != 2 || err != nil || len(files(t, d)) != 0 {
		t.Errorf("%d, %v, %v", n, err, files(t, d))
	}
}

func TestRecoverForeignFiles(t *testing.T) {
	d := openTemp(t)
	boot, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(d.Name(), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("1-1.journal", header("an earlier boot")+"add 1 a 1 {}\n")
	write("2-1.journal", header(boot)+"add 1 a 1 {\"first\":1}\nadd 2 a 1 {\"torn")
	write("3-1.journal", header(boot)+"add 1 a 1 {}\nwhat is this\n")
	write("4-1.journal", "")
	write("5-1.journal.new", header(boot)+"add 1 a 1 {}\n")
	write("README", "not a journal")
	if err := os.Symlink("README", filepath.Join(d.Name(), "6-1.journal")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(d.Name(), "7-1.journal"), 0o600); err != nil {
		t.Fatal(err)
	}
	var seen []string
	n, err := Recover(t.Context(), d, map[string]Undoer{"a": UndoFunc(func(_ context.Context, _ int, b []byte) error {
		seen = append(seen, string(b))
		return nil
	})})
	if n != 2 || strings.Join(seen, "") != `{"first":1}{}` {
		t.Errorf("undone %d: %v", n, seen)
	}
	if !errors.Is(err, ErrCorrupt) || !errors.Is(err, unix.ELOOP) {
		t.Errorf("err = %v", err)
	}
	if got := strings.Join(files(t, d), " "); got != "3-1.journal 6-1.journal 7-1.journal README" {
		t.Errorf("left: %s", got)
	}
}

// Who looks at the file of a dead process, and can undo nothing in it, does not keep another from undoing it.
func TestRecoverBesideAnother(t *testing.T) {
	d := openTemp(t)
	cmd := startOwner(t, d)
	cmd.Process.Kill()
	cmd.Wait()
	f, err := os.Open(filepath.Join(d.Name(), files(t, d)[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	nothing := UndoFunc(func(context.Context, int, []byte) error { return nil })
	owners := map[string]Undoer{"test.thing": nothing, "test.other": nothing}
	if n, err := Recover(t.Context(), d, owners); n != 0 || err != nil { // somebody has it for long
		t.Fatal(n, err)
	}
	time.AfterFunc(20*time.Millisecond, func() { unix.Flock(fd, unix.LOCK_UN) })
	if n, err := Recover(t.Context(), d, owners); n != 4 || err != nil || len(files(t, d)) != 0 {
		t.Errorf("%d undone, left %v: %v", n, files(t, d), err)
	}
}

// An undo that fails after a torn line must leave a file that can be read.
func TestTornLineIsCutBeforeAppending(t *testing.T) {
	d := openTemp(t)
	boot, _ := BootID()
	path := filepath.Join(d.Name(), "1-1.journal")
	os.WriteFile(path, []byte(header(boot)+"add 1 a 1 {}\nadd 2 b 1 {}\nadd 3 a"), 0o600)
	owners := map[string]Undoer{"a": UndoFunc(func(context.Context, int, []byte) error { return nil })}
	if n, _ := Recover(t.Context(), d, owners); n != 1 {
		t.Fatalf("undone %d", n)
	}
	b, _ := os.ReadFile(path)
	if _, open, err := parse(b); err != nil || ids(open) != "2" {
		t.Errorf("%q: %v, %v", b, open, err)
	}
}

func TestManyGoroutinesAndCompaction(t *testing.T) {
	d := openTemp(t)
	j := newJournal(t, d)
	keep, err := j.Add("keep", 1, []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				id, err := j.Add("a", 1, []byte(`{"path":"/sys/fs/cgroup/some/where/or/other"}`))
				if err == nil {
					err = j.Done(id)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	names := files(t, d)
	if len(names) != 1 {
		t.Fatalf("files: %v", names)
	}
	path := filepath.Join(d.Name(), names[0])
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, open, err := parse(b); err != nil || len(open) != 1 || open[0].ID != keep || len(b) > 2*compactAt {
		t.Errorf("%d bytes, open %v, %v", len(b), open, err)
	}
	// The file that replaced the first is locked too.
	if n, err := Recover(t.Context(), d, nil); n != 0 || err != nil {
		t.Errorf("Recover of a living journal: %d, %v", n, err)
	}
	if err := j.Done(keep); err != nil {
		t.Fatal(err)
	}
	if err := j.Done(keep); !errors.Is(err, ErrEntry) {
		t.Errorf("done twice: %v", err)
	}
	if err := j.Close(); err != nil || len(files(t, d)) != 0 {
		t.Errorf("close: %v, %v", err, files(t, d))
	}
	if _, err := j.Add("a", 1, []byte("{}")); !errors.Is(err, ErrClosed) {
		t.Errorf("add after close: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestCompactionWhenNothingIsOpen(t *testing.T) {
	j := newJournal(t, openTemp(t))
	for range 3000 {
		id, err := j.Add("a", 1, []byte(`{"a":"bbbbbbbbbbbbbbbbbbbbbbbbbb"}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Done(id); err != nil {
			t.Fatal(err)
		}
	}
	info, err := j.file.Stat()
	if err != nil || info.Size() != j.size || info.Size() > compactAt {
		t.Errorf("size %d, accounted %d, %v", info.Size(), j.size, err)
	}
}

// Journals are opened while others recover: none may lose its file.
func TestOpenAgainstRecover(t *testing.T) {
	d := openTemp(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := Recover(context.Background(), d, nil); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 300 {
		j, err := Open(d)
		if err != nil {
			t.Fatal(err)
		}
		id, err := j.Add("a", 1, []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(d.Name(), j.name))
		if err != nil || !strings.Contains(string(b), "add") {
			t.Fatalf("lost: %q, %v", b, err)
		}
		if err := errors.Join(j.Done(id), j.Close()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestDirRefusesWhatOthersMade(t *testing.T) {
	uid := os.Geteuid()
	base := t.TempDir()
	make := func(name string, mode os.FileMode) string {
		p := filepath.Join(base, name)
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := os.Chmod(base, 0o700); err != nil {
		t.Fatal(err)
	}
	make("open", 0o755)
	make("fine", 0o700)
	if err := os.Symlink("fine", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"open": false, "link": false, "file": false, "fine": true, "new": true} {
		f, err := openDir(place{parent: base, name: name}, uid, "journal", true)
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrUnsafeDir) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
	world := make("world", 0o777)
	if _, err := openDir(place{parent: world, name: "x"}, uid, "journal", true); !errors.Is(err, ErrUnsafeDir) {
		t.Errorf("a parent that others write to: %v", err)
	}
	if uid == 0 {
		foreign := make("foreign", 0o700)
		if err := os.Chown(foreign, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		if _, err := openDir(place{parent: base, name: "foreign"}, uid, "journal", true); !errors.Is(err, ErrUnsafeDir) {
			t.Errorf("a directory of another user: %v", err)
		}
		if _, err := openDir(place{parent: foreign, name: "x"}, uid, "journal", true); !errors.Is(err, ErrUnsafeDir) {
			t.Errorf("a parent of another user: %v", err)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		uid       int
		xdg, want string
	}{
		{0, "/run/user/0", "/run/caisson /tmp/caisson-0"},
		{1000, "/run/user/1000", "/run/user/1000/caisson /tmp/caisson-1000"},
		{1000, "", "/tmp/caisson-1000"},
		{1000, "relative", "/tmp/caisson-1000"},
	} {
		var got []string
		for _, p := range candidates(c.uid, c.xdg) {
			got = append(got, filepath.Join(p.parent, p.name))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestDir(t *testing.T) {
	f, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
	}
}

func TestFullDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	j := journalOnTinyTmpfs(t, dir)
	var opened []uint64
	var err error
	for range 10000 {
		var id uint64
		if id, err = j.Add("a", 1, []byte(`{"x":"`+strings.Repeat("y", 100)+`"}`)); err != nil {
			break
		}
		opened = append(opened, id)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("err = %v after %d entries", err, len(opened))
	}
	b := make([]byte, 1<<20)
	n, _ := unix.Pread(int(j.file.Fd()), b, 0)
	if _, open, err := parse(b[:n]); err != nil || len(open) != len(opened) || b[n-1] != '\n' {
		t.Errorf("a full device damaged the file: %d of %d open, %v", len(open), len(opened), err)
	}

}

// journalOnTinyTmpfs opens a journal on a tmpfs that is mounted nowhere.
func journalOnTinyTmpfs(t *testing.T, name string) *Journal {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("fsopen: %v", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetString(fs, "size", "64k"), unix.FsconfigCreate(fs)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { d.Close() })
	return newJournal(t, d)
}

// BenchmarkContainer is the cost of one container's entries: four things made and gone.
func BenchmarkContainer(b *testing.B) {
	d, err := os.Open(b.TempDir())
	if dir, dirErr := Dir(); dirErr == nil {
		d, err = dir, nil
	}
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	j := newJournal(b, d)
	data := []byte(`{"path":"/sys/fs/cgroup/caisson/4711-8833021-1","dev":31,"ino":4026531840}`)
	b.ReportAllocs()
	for b.Loop() {
		var ids [4]uint64
		for i := range ids {
			if ids[i], err = j.Add("cgroups.dir", 1, data); err != nil {
				b.Fatal(err)
			}
		}
		for _, id := range ids {
			if err := j.Done(id); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func TestDefault(t *testing.T) {
	a, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Default()
	if a != b || err != nil {
		t.Errorf("two journals: %v", err)
	}
	shared.j = nil
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
