package caissontest

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// build makes an executable of a program. The programs of this package are correct by construction, which
// TestPrograms holds; only a text given by the caller could be refused, and Print leaves out what cannot be.
func build(f func(b *program.Builder)) []byte {
	b := program.NewBuilder(false)
	b.Step("run", "")
	f(b)
	p, err := b.Build()
	if err != nil {
		panic("caissontest: " + err.Error())
	}
	exe, err := stage.Executable(p)
	if err != nil {
		panic("caissontest: " + err.Error())
	}
	return exe
}

func exit(code int) []byte { return build(func(b *program.Builder) { b.ExitGroup(code) }) }

func print(text string, code int) []byte {
	return build(func(b *program.Builder) {
		for part := range chunks(text, 4096) { // a write of that size to a pipe is whole
			b.Write(program.Int(1), part)
		}
		b.ExitGroup(code)
	})
}

func chunks(s string, n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(s) > n {
			if !yield(s[:n]) {
				return
			}
			s = s[n:]
		}
		if s != "" {
			yield(s)
		}
	}
}

func cat() []byte {
	return build(func(b *program.Builder) {
		const size = 4096
		buf := b.Words(make([]uint64, size/8)...)
		again, end := b.NewLabel(), b.NewLabel()
		b.Mark(again)
		n := b.Call(unix.SYS_READ, "read", program.Int(0), buf.Addr(), program.Int(size))
		b.JumpZero(n, end)
		b.Call(unix.SYS_WRITE, "write", program.Int(1), buf.Addr(), n.Result()).Then(again)
		b.Mark(end)
		b.ExitGroup(0)
	})
}

func pause() []byte { return build(wait) }

func wait(b *program.Builder) {
	again := b.NewLabel()
	b.Mark(again)
	null := program.Null()
	b.Call(unix.SYS_PPOLL, "ppoll", null, program.Int(0), null, null, program.Int(0)).Then(again).IgnoreTo(again, syscall.EINTR)
}

func spin() []byte {
	return build(func(b *program.Builder) {
		again := b.NewLabel()
		b.Mark(again)
		b.Call(unix.SYS_GETPID, "getpid").Then(again)
	})
}

func flood() []byte {
	text := strings.Repeat(strings.Repeat("flood ", 10)+"....\n", 4096/65)
	return build(func(b *program.Builder) {
		again := b.NewLabel()
		b.Mark(again)
		b.Write(program.Int(1), text).Then(again)
	})
}

func eat() []byte {
	return build(func(b *program.Builder) {
		again, full := b.NewLabel(), b.NewLabel()
		b.Mark(again)
		b.Call(unix.SYS_MMAP, "mmap", program.Null(), program.Int(1<<20), program.Int(unix.PROT_READ|unix.PROT_WRITE),
			program.Int(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE), program.Int(-1), program.Int(0)).
			Then(again).IgnoreTo(full, syscall.ENOMEM)
		b.Mark(full)
		b.ExitGroup(1)
	})
}

func fork() []byte {
	return build(func(b *program.Builder) {
		again, full := b.NewLabel(), b.NewLabel()
		zero := program.Int(0)
		b.Mark(again)
		b.Call(unix.SYS_CLONE, "clone", program.Int(int(unix.SIGCHLD)), zero, zero, zero, zero).
			Then(again).IgnoreTo(full, syscall.EAGAIN, syscall.ENOMEM)
		b.Mark(full)
		wait(b)
	})
}
