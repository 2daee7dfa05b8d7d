package caissontest

import (
	"context"
	"io/fs"
	"sync"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

// Rootfs gives a container a root filesystem made in memory: the programs of the package documentation in /bin, the
// users root, user (1000) and nobody (65534) in /etc/passwd and /etc/group, a /tmp for everyone, and then the files
// given. Every start gets a new one. It needs nothing of the host's
// disk, and works as root and as an ordinary user alike.
func Rootfs(files ...rootfs.File) caisson.Option {
	return caisson.Options(caisson.WithRootfs(empty{}), caisson.WithFiles(standard()...), caisson.WithFiles(files...))
}

// Program makes a file of a program, to be given to [Rootfs]:
//
//	caissontest.Rootfs(caissontest.Program("/bin/hello", caissontest.Print("hello\n", 0)))
func Program(path string, elf []byte) rootfs.File {
	return rootfs.File{Path: path, Data: elf, Mode: 0o755}
}

// Exit returns a static program that exits with code, 0 to 255.
func Exit(code int) []byte { return exit(code) }

// Print returns a static program that writes text to its standard output and exits with code, 0 to 255.
func Print(text string, code int) []byte { return print(text, code) }

var standard = sync.OnceValue(func() []rootfs.File {
	files := []rootfs.File{
		{Path: "/tmp", Dir: true, Mode: fs.ModeSticky | 0o777},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/true\nuser:x:1000:1000:user:/:/bin/true\n" +
			"nobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n")},
	}
	for path, elf := range map[string][]byte{
		"/bin/true": exit(0), "/bin/false": exit(1), "/bin/cat": cat(), "/bin/pause": pause(), "/bin/spin": spin(),
		"/bin/flood": flood(), "/bin/eat": eat(), "/bin/fork": fork(),
	} {
		files = append(files, Program(path, elf))
	}
	return files
})

// empty is a source that shows nothing, beneath a writable layer in memory.
type empty struct{}

// Describe implements [rootfs.Source].
func (empty) Describe(context.Context, rootfs.Env) (*rootfs.Description, error) {
	return &rootfs.Description{Kind: rootfs.KindComposed}, nil
}
