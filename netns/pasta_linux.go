package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/stage"
)

func (p *Pasta) prepare(_ context.Context, r Request) (*pastaAttachment, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	a := &pastaAttachment{wish: p, req: r}
	var err error
	if a.program, err = p.find(); err != nil {
		return nil, err
	}
	if a.ports, err = freePorts(p.Ports); err != nil {
		return nil, err
	}
	if a.rec.StateDir, err = stateDir(p.StateDir); err != nil {
		return nil, &Error{Op: "open state directory", Object: p.StateDir, Err: err}
	}
	a.rec.Pasta = newID()
	data, err := a.rec.encode()
	if err != nil {
		return nil, err
	}
	a.entry, err = addEntry(p.Journal, data)
	return a, err
}

// find finds the program, and what it needs.
func (p *Pasta) find() (string, error) {
	name := p.Program
	if name == "" {
		name = "pasta"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &Error{Op: "find", Object: name, Err: fmt.Errorf("%w: %w", ErrUnsupported, err), Remedy: "install the package passt"}
	}
	if initialRoot() {
		return "", &Error{Op: "use pasta", Err: fmt.Errorf("%w: it gives up root's privileges, and then cannot enter the container", ErrUnsupported), Remedy: "as root use a Bridge"}
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &Error{Op: "open", Object: "/dev/net/tun", Err: fmt.Errorf("%w: %w", ErrUnsupported, err),
			Remedy: "pasta needs it: modprobe tun, chmod 0666 /dev/net/tun; or do without a network"}
	}
	return path, unix.Close(fd)
}

// initialRoot says that the program runs as root of the machine, not of a user namespace.
func initialRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(b)), " ") == "0 0 4294967295"
}

// freePorts chooses ports that were left open, and finds those that are taken. They are free for a moment until pasta has them.
func freePorts(wished []Port) (out []Port, err error) {
	var held []*reservation
	defer func() {
		for _, r := range held {
			r.Close()
		}
	}()
	for _, p := range wished {
		for _, one := range p.each() {
			r, err := reserve(one)
			if err != nil {
				return nil, err
			}
			held, out = append(held, r), append(out, r.port)
		}
	}
	return out, nil
}

// Record is as that of a [Connection].
func (a *pastaAttachment) Record() (owner string, version int, data []byte) {
	a.durable = true
	data, _ = a.rec.encode()
	return ownerName, recordVersion, data
}

// Attach starts pasta, which goes into the background when the network stands.
func (a *pastaAttachment) Attach(ctx context.Context, t Target) error {
	if a.durable {
		if err := a.strike(); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, a.program, a.arguments(t.Pid)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Dir = "/"
	log, err := os.CreateTemp("", "caisson-pasta-") // not a pipe: the one in the background keeps it
	if err != nil {
		return err
	}
	defer log.Close()
	_ = os.Remove(log.Name())
	cmd.Stdout, cmd.Stderr = log, log
	if err := withSIGPIPE(cmd.Run); err != nil {
		said, _ := io.ReadAll(io.NewSectionReader(log, 0, 4096))
		return &Error{Op: "run", Object: a.program, Err: fmt.Errorf("%w: %s", err, bytes.TrimSpace(said)), Remedy: "a host without a default route has no network to share"}
	}
	if a.durable {
		return nil // it outlives this program as the container does
	}
	return a.keep()
}

// keep has pasta end with this program, however that ends: its ports would stay taken, and lead nowhere.
func (a *pastaAttachment) keep() error {
	pid, err := a.rec.pid()
	if err != nil {
		return &Error{Op: "look for pasta in", Object: a.rec.pidFile(), Err: err}
	}
	fail := func(err error) error {
		return &Error{Op: "have it end with this program", Object: "pasta", Err: err}
	}
	process, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fail(os.NewSyscallError("pidfd_open", err))
	}
	ours, err := hasArgument(pid, a.rec.pidFile()) // only now it is certain that the number is no other's
	if err != nil || !ours {
		return errors.Join(err, unix.Close(process))
	}
	forget, err := stage.Keep(process)
	if err != nil {
		return errors.Join(fail(err), unix.Close(process))
	}
	a.release = func() {
		forget()
		unix.Close(process)
	}
	return nil
}

// pid is the process id that pasta has written.
func (r *record) pid() (int, error) {
	b, err := os.ReadFile(r.pidFile())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// withSIGPIPE calls f with SIGPIPE not ignored: a program inherits that, and some versions of pasta take it for a failure. Monitors
// ignore it.
func withSIGPIPE(f func() error) error {
	if signal.Ignored(unix.SIGPIPE) {
		signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
		defer signal.Ignore(unix.SIGPIPE)
	}
	return f()
}

// Detach ends pasta.
func (a *pastaAttachment) Detach(context.Context) error {
	if err := endPasta(&a.rec); err != nil {
		return err
	}
	if a.release != nil {
		a.release()
		a.release = nil
	}
	return a.strike()
}

func (a *pastaAttachment) strike() error {
	id := a.entry
	a.entry = 0
	return strikeEntry(a.wish.Journal, id)
}

// endPasta ends the program that writes to the record's file, and removes the file. One that has not come to write it is found
// among all processes.
func endPasta(r *record) error {
	file := r.pidFile()
	if pid, err := r.pid(); err == nil {
		ended, err := endIf(pid, file)
		if err != nil {
			return err
		}
		if ended {
			return removeFile(file)
		}
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return &Error{Op: "look for pasta in", Object: "/proc", Err: err}
	}
	for _, e := range all {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if _, err := endIf(pid, file); err != nil {
				return err // it stays recorded
			}
		}
	}
	return removeFile(file)
}

// removeFile removes a file that others may have removed.
func removeFile(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// endIf kills a process if it was told to write to the file: no other has its name, which is random.
func endIf(pid int, file string) (bool, error) {
	if ours, err := hasArgument(pid, file); !ours || err != nil {
		return false, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return false, nil
	}
	if err != nil {
		return false, &Error{Op: "end pasta", Object: strconv.Itoa(pid), Err: os.NewSyscallError("pidfd_open", err)}
	}
	defer unix.Close(fd)
	// Only now it is certain that the number has not become another's.
	if ours, err := hasArgument(pid, file); !ours || err != nil {
		return false, err
	}
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) != nil {
		return false, nil
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000) // until its ports are free
	return true, nil
}

// hasArgument looks for an argument of a process. What has ended, and what is another user's, has it not.
func hasArgument(pid int, arg string) (bool, error) {
	path := filepath.Join("/proc", strconv.Itoa(pid), "cmdline")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrPermission) {
		return false, &Error{Op: "look for pasta in", Object: path, Err: err}
	}
	return bytes.Contains(b, []byte("\x00"+arg+"\x00")), nil
}
