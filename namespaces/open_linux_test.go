package namespaces

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// sleeper starts a process in new namespaces; as a user, within a new user namespace in which it is root.
func sleeper(t testing.TB, flags uintptr) (int, *os.File) {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "1000")
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, PidFD: &pidfd}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pidfd), "pidfd")
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); f.Close() })
	return cmd.Process.Pid, f
}

const mostFlags = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP | syscall.CLONE_NEWPID

func TestOpen(t *testing.T) {
	pid, pidfd := sleeper(t, mostFlags)
	for _, k := range All() {
		own, err := Current(k)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := Of(k, pid)
		if err != nil {
			t.Fatal(err)
		}
		byFD, err := OfPIDFD(k, pidfd)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := Same(theirs, byFD); !same || err != nil {
			t.Errorf("%v: by pid and by pidfd differ: %v", k, err)
		}
		same, err := Same(own, theirs)
		shared := k == Time || k == User && os.Geteuid() == 0
		if same != shared || err != nil {
			t.Errorf("%v: same %v, %v", k, same, err)
		}
		if got, err := KindOf(theirs); got != k || err != nil {
			t.Errorf("%v: kind %v, %v", k, got, err)
		}
		if id, err := IDOfProcess(k, pid); err != nil || id.IsZero() {
			t.Errorf("%v: %v, %v", k, id, err)
		}
		for _, f := range []*os.File{own, theirs, byFD} {
			if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%v: not close-on-exec: %v", k, err)
			}
			f.Close()
		}
	}
}

func TestPIDFDWithoutIoctl(t *testing.T) {
	pid, pidfd := sleeper(t, syscall.CLONE_NEWUTS)
	f, err := ofPIDFDByProc(UTS, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := IDOfProcess(UTS, pid)
	if got, err2 := IDOf(f); got != want || err != nil || err2 != nil {
		t.Errorf("%v, %v: %v %v", got, want, err, err2)
	}
	if err := unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	unix.Wait4(pid, &ws, 0, nil)
	for name, open := range map[string]func(Kind, *os.File) (*os.File, error){"proc": ofPIDFDByProc, "ioctl": OfPIDFD} {
		if _, err := open(UTS, pidfd); !errors.Is(err, ErrProcessGone) {
			t.Errorf("%s after the end: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		k    Kind
		path string
		want error
	}{
		"other kind":   {Net, "/proc/self/ns/uts", ErrWrongKind},
		"fifo":         {Net, fifo, ErrNotNamespace}, // must not block
		"directory":    {Net, dir, ErrNotNamespace},
		"missing":      {Net, dir + "/x", unix.ENOENT},
		"invalid kind": {0, "/proc/self/ns/uts", ErrInvalid},
	} {
		if _, err := Open(c.k, c.path); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Of(Net, 1<<22+1); !errors.Is(err, ErrProcessGone) {
		t.Errorf("no process: %v", err)
	}
	if _, err := IDOf(os.Stdin); !errors.Is(err, ErrNotNamespace) {
		t.Errorf("stdin: %v", err)
	}
	if _, err := KindOf(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("nil: %v", err)
	}
}

func TestOwnerAndParent(t *testing.T) {
	pid, _ := sleeper(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWUTS)
	user, err := Of(User, pid)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if uid, err := OwnerUID(user); err != nil || int(uid) != os.Geteuid() {
		t.Errorf("owner %d, %v", uid, err)
	}
	uts, err := Of(UTS, pid)
	if err != nil {
		t.Fatal(err)
	}
	defer uts.Close()
	owner, err := OwningUser(uts)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if same, err := Same(owner, user); !same || err != nil {
		t.Errorf("owner of the uts namespace: %v, %v", same, err)
	}
	parent, err := Parent(user)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	own, _ := Current(User)
	defer own.Close()
	if same, err := Same(parent, own); !same || err != nil {
		t.Errorf("parent: %v, %v", same, err)
	}
	if _, err := OwnerUID(uts); !errors.Is(err, ErrWrongKind) {
		t.Errorf("owner of a uts namespace: %v", err)
	}
}

func TestJoinOrder(t *testing.T) {
	owned, _ := sleeper(t, syscall.CLONE_NEWUSER|syscall.CLONE_NEWNS|syscall.CLONE_NEWUTS)
	s := HostSet()
	s.Mount, s.UTS, s.User = JoinPID(owned), JoinPID(owned), JoinPID(owned)
	s.IPC = JoinPID(os.Getpid()) // nothing to do
	foreign, _ := sleeper(t, syscall.CLONE_NEWNET)
	s.Net = JoinPID(foreign) // of another owner: to be joined before the user namespace
	l, err := s.OpenJoined()
	if err != nil {
		t.Fatal(err)
	}
	defer closeJoined(l)
	var got []Kind
	for _, j := range l {
		got = append(got, j.Kind)
	}
	if want := []Kind{Net, User, UTS, Mount}; len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("order %v, want %v", got, want)
	}
	own := HostSet()
	for _, k := range All() {
		own.Put(k, JoinPID(os.Getpid()))
	}
	if l, err := own.OpenJoined(); len(l) != 0 || err != nil {
		t.Errorf("one's own namespaces: %v, %v", l, err)
	}
	bad := HostSet()
	bad.Net, bad.UTS = JoinPath("/proc/self/ns/uts"), JoinFile(os.Stdin)
	if l, err := bad.OpenJoined(); len(l) != 0 || !errors.Is(err, ErrWrongKind) || !errors.Is(err, ErrNotNamespace) {
		t.Errorf("both faults are to be told: %v", err)
	}
}
