package namespaces

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

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
	stderr := &limitedBuffer{max: 4096}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir, cmd.Stderr, cmd.WaitDelay = []string{}, "/", stderr, time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, unix.ECHILD):
		err = ErrStatusLost
	}
	if said := strings.TrimSpace(stderr.String()); said != "" {
		err = fmt.Errorf("%w: %q", err, said)
	}
	return &Error{Op: "run", Object: path + " " + strings.Join(args, " "), Err: err,
		Remedy: "the ids must be in the caller's ranges in " + subuidFile + " and " + subgidFile}
}

// limitedBuffer keeps the first bytes written to it and drops the rest.
type limitedBuffer struct {
	bytes.Buffer
	max int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := b.max - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
