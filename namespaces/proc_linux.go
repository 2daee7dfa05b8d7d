package namespaces

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// openProc opens the directory of a process in /proc. The descriptor stays tied to that process: after it ended,
// reads and writes below it fail with ESRCH, even if its number was given to another.
func openProc(pid int) (*os.File, error) {
	if pid <= 0 {
		return nil, invalid("process id", "%d is not positive", pid)
	}
	return openProcDir(strconv.Itoa(pid))
}

func openProcSelf() (*os.File, error) { return openProcDir("self") }

func openProcDir(name string) (*os.File, error) {
	path := "/proc/" + name
	fd, err := openat(unix.AT_FDCWD, path, unix.O_DIRECTORY|unix.O_PATH)
	if err != nil {
		return nil, &Error{Op: "open", Object: path, Err: goneErr(err)}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
		f.Close()
		return nil, &Error{Op: "open", Object: path, Err: fmt.Errorf("%w: /proc is not a proc file system", ErrNotSupported),
			Remedy: "mount proc on /proc"}
	}
	return f, nil
}

// goneErr marks the errnos that stand for a process that no longer exists.
func goneErr(err error) error {
	if err == unix.ENOENT || err == unix.ESRCH {
		return fmt.Errorf("%w: %w", ErrProcessGone, err)
	}
	return err
}

func openat(dir int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openBelow opens a file below a directory of openProc.
func openBelow(dir *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := openat(int(dir.Fd()), name, flags)
	if err != nil {
		return nil, &Error{Op: "open", Object: path, Err: goneErr(err)}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readAt reads a file of at most max bytes below dir.
func readAt(dir *os.File, name string, max int64) (string, error) {
	f, err := openBelow(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max))
	if err != nil {
		return "", &Error{Op: "read", Object: f.Name(), Err: err}
	}
	return string(b), nil
}

// writeAt writes text to a file below dir with one write(2), as the settings in /proc need it.
func writeAt(dir *os.File, name, text string) error {
	f, err := openBelow(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		_, err = unix.Write(int(f.Fd()), []byte(text))
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &Error{Op: "write", Object: f.Name(), Err: goneErr(err)}
	}
	return nil
}

// pidOfPIDFD returns the id, in this pid namespace, of the process that a pidfd stands for.
func pidOfPIDFD(pidfd *os.File) (int, error) {
	dir, err := openProcSelf()
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	text, err := readAt(dir, fmt.Sprintf("fdinfo/%d", pidfd.Fd()), 4096)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err == nil && n > 0 {
				return n, nil
			}
			return 0, &Error{Op: "look up process of pidfd", Err: fmt.Errorf("%w: %w", ErrProcessGone, unix.ESRCH)}
		}
	}
	return 0, &Error{Op: "look up process of pidfd", Err: fmt.Errorf("%w: the file is not a pidfd", ErrInvalid)}
}

// sameProcess reports whether pid is the living (or not yet reaped) process that pidfd stands for.
func sameProcess(pid int, pidfd *os.File) error {
	n, err := pidOfPIDFD(pidfd)
	if err != nil {
		return err
	}
	if n != pid {
		return invalid("pidfd", "it is that of process %d, not %d", n, pid)
	}
	return nil
}
