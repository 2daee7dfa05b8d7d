package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// newIDMapDirs are where newuidmap and newgidmap are looked for. Not $PATH: the programs decide what a container's
// ids are, and the environment may be in other hands.
var newIDMapDirs = []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/run/wrappers/bin"}

// findNewIDMap returns the paths of newuidmap and newgidmap.
func findNewIDMap() (uidmap, gidmap string, err error) {
	uidmap, gidmap = findProgram("newuidmap"), findProgram("newgidmap")
	if uidmap == "" || gidmap == "" {
		return "", "", &Error{Op: "look for newuidmap and newgidmap in", Object: strings.Join(newIDMapDirs, ":"), Err: ErrNoNewIDMap,
			Remedy: "install them: apt-get install uidmap, or dnf install shadow-utils"}
	}
	return uidmap, gidmap, nil
}

func findProgram(name string) string {
	for _, dir := range newIDMapDirs {
		path := dir + "/" + name
		if unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) == nil {
			return path
		}
	}
	return ""
}

// runNewIDMap runs "newuidmap PID INSIDE OUTSIDE COUNT ...".
func runNewIDMap(ctx context.Context, path string, pid int, l []IDMap) error {
	args := []string{strconv.Itoa(pid)}
	for _, m := range l {
		args = append(args, strings.Fields(m.String())...)
	}
	said, err := runTold(ctx, path, args)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, unix.ECHILD):
		err = ErrStatusLost
	}
	if said != "" {
		err = fmt.Errorf("%w: %q", err, said)
	}
	return &Error{Op: "run", Object: path + " " + strings.Join(args, " "), Err: err,
		Remedy: "the ids must be in the caller's ranges in " + subuidFile + " and " + subgidFile}
}

// runTold runs a program and returns the beginning of what it wrote to its standard error. The end of that pipe is not
// waited for: processes that other goroutines are making hold it too until they execute something, and may be waiting for
// this very program's like.
func runTold(ctx context.Context, path string, args []string) (string, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return "", os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(p[0])
	stderr := os.NewFile(uintptr(p[1]), "stderr")
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", stderr
	err := cmd.Run()
	stderr.Close()
	if nerr := unix.SetNonblock(p[0], true); nerr != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	n, _ := unix.Read(p[0], buf)
	return strings.TrimSpace(string(buf[:max(n, 0)])), err
}
