package namespaces

import (
	"os"
	"strconv"
	"strings"
)

// Namespace says which namespace of one kind a process gets: a new one, the caller's own, or one that exists.
// It is a wish; nothing is opened or made before it is used. The zero Namespace is the default, a new one;
// [Namespace.IsDefault] tells it from [New] for callers that give kinds different defaults.
type Namespace struct {
	how  how
	path string
	pid  int
	file *os.File
}

type how uint8

const (
	howDefault how = iota
	howNew
	howHost
	howPath
	howPID
	howFile
)

// New is a new namespace.
func New() Namespace { return Namespace{how: howNew} }

// Host is the namespace the calling program is in: the process is not isolated in this respect.
func Host() Namespace { return Namespace{how: howHost} }

// JoinPath is the namespace that the file at path stands for: /proc/PID/ns/net, or a path on which [Pin] or
// "ip netns add" put one. The path is absolute and is resolved in the caller's mount namespace.
func JoinPath(path string) Namespace { return Namespace{how: howPath, path: path} }

// JoinPID is the namespace that the process pid is in. The pid is that of the caller's pid namespace. It is
// the caller's part that the process stays alive and unreaped until the namespace has been opened.
func JoinPID(pid int) Namespace { return Namespace{how: howPID, pid: pid} }

// JoinFile is the namespace that the open file stands for: a file of /proc/PID/ns, or one that [Open], [Of] or
// [Current] returned. The file stays the caller's, who closes it after the process was started.
func JoinFile(f *os.File) Namespace { return Namespace{how: howFile, file: f} }

// IsDefault reports whether n is the zero value: nothing was asked for.
func (n Namespace) IsDefault() bool { return n.how == howDefault }

// IsNew reports whether n is a new namespace, by default or by [New].
func (n Namespace) IsNew() bool { return n.how == howDefault || n.how == howNew }

// IsHost reports whether n is the caller's own namespace.
func (n Namespace) IsHost() bool { return n.how == howHost }

// IsJoin reports whether n is an existing namespace given by path, process or file.
func (n Namespace) IsJoin() bool { return n.how >= howPath && n.how <= howFile }

// Path returns the path given to [JoinPath], or "".
func (n Namespace) Path() string { return n.path }

// PID returns the process id given to [JoinPID], or 0.
func (n Namespace) PID() int { return n.pid }

// File returns the file given to [JoinFile], or nil.
func (n Namespace) File() *os.File { return n.file }

// String returns "new", "host", or what is joined.
func (n Namespace) String() string {
	switch n.how {
	case howDefault, howNew:
		return "new"
	case howHost:
		return "host"
	case howPath:
		return "join " + n.path
	case howPID:
		return "join process " + strconv.Itoa(n.pid)
	case howFile:
		if n.file == nil {
			return "join nil file"
		}
		return "join file " + n.file.Name()
	}
	return "invalid namespace"
}

func (n Namespace) validate(k Kind) error {
	field := k.String() + " namespace"
	switch n.how {
	case howDefault, howNew, howHost:
	case howPath:
		if !strings.HasPrefix(n.path, "/") || strings.ContainsRune(n.path, 0) {
			return invalid(field, "path %q is not absolute", n.path)
		}
	case howPID:
		if n.pid <= 0 {
			return invalid(field, "process id %d is not positive", n.pid)
		}
	case howFile:
		if n.file == nil {
			return invalid(field, "the file is nil")
		}
	default:
		return invalid(field, "unknown choice %d", n.how)
	}
	return nil
}
