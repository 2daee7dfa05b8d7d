package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	rt "runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probe is this program in a container, or as a hook.
func probe(args []string) {
	switch args[0] {
	case "report":
		printReport(args[1:])
	case "wait":
		select {} // no deadlock: the next line of init has a handler
	case "exit":
		n, _ := strconv.Atoi(args[1])
		os.Exit(n)
	case "mark": // mark FILE: shows that it ran
		if err := appendLine(args[1], "marked"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "signal": // signal FILE: says that it is ready, and which signal came
		markSignal(args[1])
	case "hook": // hook FILE NAME STATUS: what the hook saw
		hook(args[1], args[2], args[3])
	case "thread": // thread FILE: a thread calls getpriority(2), and says so before and after
		go func() {
			rt.LockOSThread()
			_ = appendLine(args[1], "before")
			_, _ = unix.Getpriority(unix.PRIO_PROCESS, 0)
			_ = appendLine(args[1], "after")
		}()
		time.Sleep(time.Minute)
	case "say": // say TEXT...: tells the service manager, one datagram each, and waits
		say(args[1:])
	case "slow": // a hook that takes too long
		time.Sleep(time.Minute)
	}
}

func init() {
	rt.LockOSThread() // so that no other goroutine is on the first thread: a process whose first thread is gone looks like one that has ended
	if filepath.Base(os.Args[0]) == "probe" && len(os.Args) > 1 && os.Args[1] == "wait" {
		signal.Notify(make(chan os.Signal, 1), unix.SIGUSR2)
	}
}

func appendLine(file, line string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return err
}

// say sends datagrams as sd_notify(3) does. That nobody listens any more is no fault.
func say(texts []string) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	for _, text := range texts {
		if err == nil {
			err = unix.Sendto(fd, []byte(text), 0, &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")})
		}
		if err == unix.ECONNREFUSED {
			err = nil
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	time.Sleep(time.Minute)
}

func markSignal(file string) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGUSR1, unix.SIGTERM, unix.SIGHUP)
	_ = appendLine(file, "ready")
	_ = appendLine(file, (<-ch).String())
}

// hooked is what a hook saw.
type hooked struct {
	Name, Stdin, Cwd string
	Args, Env        []string
	Mounts, Pids     string // its namespaces
	Root             string // a file that tells which root it sees
	Status           string // what the process of the container is then, by its command line
}

func hook(file, name, status string) {
	in, _ := io.ReadAll(os.Stdin)
	h := hooked{Name: name, Stdin: string(in), Args: os.Args, Env: os.Environ()}
	h.Cwd, _ = os.Getwd()
	h.Mounts, _ = os.Readlink("/proc/self/ns/mnt")
	h.Pids, _ = os.Readlink("/proc/self/ns/pid")
	var state struct{ Pid int }
	if json.Unmarshal(in, &state) == nil && state.Pid > 0 {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", state.Pid))
		h.Status = string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		h.Root, _ = os.Readlink(fmt.Sprintf("/proc/%d/root", state.Pid))
	}
	line, _ := json.Marshal(h)
	if err := appendLine(file, string(line)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	n, _ := strconv.Atoi(status)
	os.Exit(n)
}

// report is what the probe in a container sees.
type report struct {
	UID, GID, Umask, Priority, Policy int
	Groups                            []int
	Args, Env                         []string
	Cwd, Hostname, Domainname         string
	Status, Limits, Mounts, Cgroup    string
	OOM, UIDMap, GIDMap, Offsets      string
	Machine                           string
	Personality, IOPrio, Memory       int
	CPUs                              int
	Namespaces                        map[string]string
	Fds                               []string
	Terminal                          bool
	Rows, Cols                        int
	Did                               map[string]string
}

func printReport(asked []string) {
	rt.LockOSThread()
	r := &report{Fds: openFds(), UID: os.Getuid(), GID: os.Getgid(), Args: os.Args, Env: os.Environ(), Namespaces: map[string]string{}, Did: map[string]string{}}
	r.Umask = unix.Umask(0)
	unix.Umask(r.Umask)
	r.Groups, _ = os.Getgroups()
	r.Cwd, _ = os.Getwd()
	r.Hostname, _ = os.Hostname()
	for path, to := range map[string]*string{"/proc/sys/kernel/domainname": &r.Domainname, "/proc/self/status": &r.Status, "/proc/self/limits": &r.Limits,
		"/proc/self/mountinfo": &r.Mounts, "/proc/self/cgroup": &r.Cgroup, "/proc/self/oom_score_adj": &r.OOM, "/proc/self/uid_map": &r.UIDMap,
		"/proc/self/gid_map": &r.GIDMap, "/proc/self/timens_offsets": &r.Offsets} {
		b, _ := os.ReadFile(path)
		*to = strings.TrimSpace(string(b))
	}
	for _, n := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		r.Namespaces[n], _ = os.Readlink("/proc/self/ns/" + n)
	}
	r.attributes()
	for _, a := range asked {
		r.Did[a] = do(a)
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
}

// attributes asks what the kernel keeps about a process.
func (r *report) attributes() {
	call := func(nr, a, b uintptr) int {
		n, _, _ := unix.Syscall(nr, a, b, 0)
		return int(n)
	}
	r.Personality = call(unix.SYS_PERSONALITY, 0xffffffff, 0)
	r.IOPrio = call(unix.SYS_IOPRIO_GET, 1, 0)
	r.Policy = call(unix.SYS_SCHED_GETSCHEDULER, 0, 0)
	if p, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil {
		r.Priority = 20 - p
	}
	if _, err := policy(&r.Memory); err != nil {
		r.Memory = -1
	}
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		r.CPUs = set.Count()
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Machine = unix.ByteSliceToString(u.Machine[:])
	}
	if w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		r.Terminal, r.Rows, r.Cols = true, int(w.Row), int(w.Col)
	}
}

// openFds are the descriptors besides the streams that were open at the beginning, but for what Go's own runtime opens.
func openFds() (list []string) {
	for fd := 3; fd < 64; fd++ {
		to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil && !strings.HasPrefix(to, "anon_inode:[event") {
			list = append(list, fmt.Sprintf("%d: %s", fd, to))
		}
	}
	return list
}

// do carries out VERB:OBJECT and says what came of it: ok, or an error's name.
func do(asked string) string {
	verb, path, _ := strings.Cut(asked, ":")
	var err error
	switch verb {
	case "stat":
		return describe(path)
	case "read":
		var b []byte
		if b, err = readSome(path); err == nil {
			return "ok " + string(b)
		}
	case "list":
		var entries []os.DirEntry
		if entries, err = os.ReadDir(path); err == nil {
			names := make([]string, len(entries))
			for i, e := range entries {
				names[i] = e.Name()
			}
			return "ok " + strings.Join(names, ",")
		}
	case "create":
		err = os.WriteFile(path, []byte("x"), 0o644)
	case "open", "write":
		mode := map[string]int{"open": unix.O_RDWR, "write": unix.O_WRONLY}[verb]
		var fd int
		if fd, err = unix.Open(path, mode|unix.O_NOCTTY, 0); err == nil {
			unix.Close(fd)
		}
	case "mknod":
		err = unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	case "mount":
		err = unix.Mount("tmpfs", path, "tmpfs", 0, "")
	case "exec":
		return execute(path)
	case "call":
		n, _ := strconv.Atoi(path)
		_, err = unix.Getpriority(n, 0) // which no Go program needs, so that filters are made for it
	default:
		return "no such verb"
	}
	return errnoName(err)
}

func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, err := f.Read(b)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return bytes.TrimSpace(b[:n]), err
}

func execute(path string) string {
	cmd := exec.Command(path, "exit", "7")
	if _, err := os.Lstat(path); err == nil {
		cmd.Args[0] = "probe"
	}
	err := cmd.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return ee.String()
	}
	return errnoName(err)
}

func errnoName(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}

// describe is KIND MODE UID GID, and the numbers of a device or the target of a link.
func describe(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return errnoName(err)
	}
	kind := map[uint32]string{unix.S_IFCHR: "chr", unix.S_IFBLK: "blk", unix.S_IFIFO: "fifo", unix.S_IFDIR: "dir", unix.S_IFLNK: "link", unix.S_IFREG: "file", unix.S_IFSOCK: "sock"}[st.Mode&unix.S_IFMT]
	text := fmt.Sprintf("%s %04o %d %d", kind, st.Mode&0o7777, st.Uid, st.Gid)
	switch kind {
	case "chr", "blk":
		text += fmt.Sprintf(" %d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	case "link":
		to, _ := os.Readlink(path)
		text += " " + to
	}
	return text
}
