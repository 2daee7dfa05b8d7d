package cgroups

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// A holder is the process that keeps a scope from being empty, which would end it. It waits for the end of this
// program, and does nothing else: no Go runtime, a few pages.
type holder struct{ child *stage.Child }

func startHolder() (*holder, error) {
	p, err := holderProgram()
	if err != nil {
		return nil, err
	}
	c, err := stage.Start(stage.Config{Program: p, Cgroup: -1})
	if err != nil {
		return nil, err
	}
	return &holder{c}, nil
}

// release ends and collects it.
func (h *holder) release() {
	h.child.Kill()
	h.child.Conn.Close()
	unix.Close(h.child.Pidfd)
}

var holderProgram = sync.OnceValues(func() (*program.Program, error) {
	b := program.NewBuilder(false)
	b.Step("leave", "the host's session, directory and descriptors")
	b.Setsid()
	b.Chdir("/")
	b.Prctl(unix.PR_SET_NAME, "PR_SET_NAME", program.Bytes([]byte("caisson-scope\x00"), `"caisson-scope"`))
	const sock = 0
	b.Dup3(b.Input(stage.HostInput), sock, 0).Ignore(unix.EINVAL) // EINVAL: it is 0 already
	b.CloseRange(1, 0)
	signals := make([]byte, 8) // nothing blocked; the mask is what clone's caller had
	b.Call(unix.SYS_RT_SIGPROCMASK, "rt_sigprocmask", program.Named(unix.SIG_SETMASK, "SIG_SETMASK"), program.Bytes(signals, "[]"), program.Null(), program.Int(8))
	b.Step("hold the scope until", "the host ends")
	b.Read(program.Int(sock), 8).Ignore(unix.ECONNRESET)
	b.ExitGroup(0)
	return b.Build()
})
