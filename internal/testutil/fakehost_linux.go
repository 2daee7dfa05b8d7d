package testutil

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeHostEnv marks a test binary that runs in namespaces of its own.
const fakeHostEnv = "CAISSON_TEST_FAKE_HOST"

// MainInFakeHost is as [Main], but the tests and roles run in a network namespace and a mount namespace of their own, with an
// empty /run: what they take for the host's network is theirs alone, so that they leave the machine as it is and an ordinary
// user can run them, as root of a user namespace. begin is called before the tests, and not before roles.
func MainInFakeHost(m *testing.M, begin func() error, roles map[string]func()) {
	if os.Getenv(fakeHostEnv) == "" {
		os.Exit(runInFakeHost())
	}
	if os.Getenv(RoleEnv) == "" {
		if err := errors.Join(makeFakeHost(), begin()); err != nil {
			fmt.Fprintln(os.Stderr, "fake host:", err)
			os.Exit(1)
		}
	}
	Main(m, roles)
}

func runInFakeHost() int {
	runtime.LockOSThread() // the signal below comes when the thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), fakeHostEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(1, exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in namespaces:", err)
		return 1
	}
	return 0
}

// makeFakeHost makes the empty /run, raises the loopback device and forwards nothing.
func makeFakeHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	// A new namespace begins with the machine's value. Where it cannot be written no test can change it either.
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644)
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}
