package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// DefaultPath is searched when no PATH is given; it is what most container engines set.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var (
	// ErrCommandNotFound says that no file of the name is in the root, or in no directory of PATH. It is
	// fs.ErrNotExist. A shell would exit with 127.
	ErrCommandNotFound = commandError{"command not found", fs.ErrNotExist}

	// ErrNotExecutable says that the file has no execute permission, or is not a regular file. It is
	// fs.ErrPermission. A shell would exit with 126.
	ErrNotExecutable = commandError{"not executable", fs.ErrPermission}

	// ErrIsDirectory says that the command is a directory. It is syscall.EISDIR.
	ErrIsDirectory = commandError{"is a directory", syscall.EISDIR}

	// ErrNoInterpreter says that the file is there, but not what the kernel needs to run it: the program after
	// "#!" of a script, or the dynamic linker of a binary. The kernel's own answer, "no such file or
	// directory", would seem to speak of the command. It is fs.ErrNotExist.
	ErrNoInterpreter = commandError{"interpreter not found", fs.ErrNotExist}
)

// commandError is a sentinel that is also a general one.
type commandError struct {
	text string
	is   error
}

func (e commandError) Error() string { return e.text }
func (e commandError) Unwrap() error { return e.is }

// CommandError is a command that cannot be run in a root.
type CommandError struct {
	Command     string // as asked for
	Root        string // name of the root directory
	Path        string // the file that was found, in the root; empty if none was
	Interpreter string // what is missing, with [ErrNoInterpreter]
	Err         error  // [ErrCommandNotFound], [ErrNotExecutable], [ErrIsDirectory], [ErrNoInterpreter] or a *PathError
}

// Error names the command and, where it helps, file and interpreter.
func (e *CommandError) Error() string {
	s := fmt.Sprintf("command %q in root %q: ", clipText(e.Command), e.Root)
	if e.Path != "" && e.Path != e.Command {
		s += fmt.Sprintf("%q: ", clipText(e.Path))
	}
	s += e.Err.Error()
	if e.Interpreter != "" {
		s += fmt.Sprintf(": %q", clipText(e.Interpreter))
	}
	return s
}

// Unwrap returns the cause.
func (e *CommandError) Unwrap() error { return e.Err }

// LookPath finds the file that execvp(3) would run for command in the root, without running anything, so that
// a wrong command is known before a container is made. A command with a slash is taken relative to cwd;
// another is searched for in pathEnv, a list like $PATH ([DefaultPath] if empty, and an empty element is cwd).
// cwd is a path in the root; "" is "/".
//
// The result is an absolute path in the root. The file is a regular one with at least one execute bit, and the
// interpreters it needs are there: of "#!" scripts, to the kernel's depth of five, and of ELF binaries. Whether
// the user of the container has the right to execute it, and whether the architecture fits, is not judged; a
// file that the caller may not read is taken as it is.
//
// The first fault in PATH is remembered, as execvp does: a file that is not executable is passed over for a
// later one that is, and reported if there is none. The error is a *CommandError.
func LookPath(root *Root, command, pathEnv, cwd string) (string, error) {
	fail := &CommandError{Command: command, Root: root.Name(), Err: ErrCommandNotFound}
	for _, file := range candidates(command, pathEnv, cwd) {
		err := checkExecutable(root, file)
		if err == nil {
			var missing string
			if missing, err = checkInterpreters(root, file, cwd); err == nil {
				return file, nil
			}
			return "", &CommandError{command, root.Name(), file, missing, err}
		}
		if fail.Path == "" && !errors.Is(err, ErrCommandNotFound) {
			fail.Path, fail.Err = file, err
		}
	}
	return "", fail
}

// candidates are the files to try, in order.
func candidates(command, pathEnv, cwd string) []string {
	if command == "" || strings.IndexByte(command, 0) >= 0 {
		return nil
	}
	if strings.Contains(command, "/") {
		return []string{inDir(cwd, command)}
	}
	if pathEnv == "" {
		pathEnv = DefaultPath
	}
	var files []string
	for dir := range strings.SplitSeq(pathEnv, ":") {
		files = append(files, inDir(inDir(cwd, dir), command))
	}
	return files
}

// inDir joins without cleaning: "a/.." need not be "." where a is a symbolic link.
func inDir(dir, file string) string {
	switch {
	case strings.HasPrefix(file, "/"):
		return file
	case file == "":
		return dir
	case dir == "":
		dir = "/"
	}
	if !path.IsAbs(dir) {
		dir = "/" + dir
	}
	return strings.TrimSuffix(dir, "/") + "/" + file
}

// checkExecutable looks at the file itself.
func checkExecutable(root *Root, file string) error {
	info, err := root.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return ErrCommandNotFound
	case err != nil:
		return err
	case info.IsDir():
		return ErrIsDirectory
	case !info.Mode().IsRegular(), info.Mode().Perm()&0o111 == 0:
		return ErrNotExecutable
	}
	return nil
}

// maxInterpreters is how many scripts may run each other: the kernel's limit.
const maxInterpreters = 5

// checkInterpreters follows the chain of interpreters of file, and names the one that is missing.
func checkInterpreters(root *Root, file, cwd string) (missing string, err error) {
	for range maxInterpreters + 1 {
		next, script, err := readInterpreter(root, file)
		if err != nil || next == "" {
			return "", err
		}
		next = inDir(cwd, next)
		if err := checkExecutable(root, next); err != nil {
			if errors.Is(err, ErrCommandNotFound) {
				err = ErrNoInterpreter
			}
			return next, err
		}
		if !script {
			return "", nil // the kernel maps the dynamic linker and asks no further
		}
		file = next
	}
	return file, syscall.ELOOP
}

// readInterpreter reads what the kernel would read. A file that cannot be read has none that is known.
func readInterpreter(root *Root, file string) (interp string, script bool, err error) {
	f, err := root.OpenFile(file, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrPermission) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return "", false, root.wrap("read", file, err)
	}
	if interp, ok := scriptInterpreter(head[:n]); ok {
		return interp, true, nil
	}
	return elfInterpreter(head[:n], f), false, nil
}
