package namespaces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/stage"
)

// Probe finds out which kinds of namespace this kernel and this user may make, by making them: a tiny process for each
// question makes one and ends, which nothing of the program's own notices. It takes some milliseconds. Answers can change
// while the machine runs (sysctl settings, limits), so they are not remembered. When ctx ends the remaining questions
// stay unknown.
func Probe(ctx context.Context) Report {
	var r Report
	for _, k := range All() {
		p := Probed{Kind: k}
		for in, v := range map[bool]*Verdict{false: &p.Direct, true: &p.InUser} {
			if err := ctx.Err(); err != nil {
				*v = Verdict{Unknown, err, ""}
			} else {
				*v = probe(k, in)
			}
		}
		r = append(r, p)
	}
	return r
}

// probeTag is what the probe process says once the namespace is made.
const probeTag = 1

var probePrograms = sync.OnceValues(func() (map[Kind]*program.Program, error) {
	m := map[Kind]*program.Program{}
	for _, k := range All() {
		b := program.NewBuilder(false)
		b.Step("make namespace", k.String())
		b.Unshare(uint64(k.CloneFlag()))
		stage.EmitSync(b, probeTag)
		b.ExitGroup(0)
		p, err := b.Build()
		if err != nil {
			return nil, err
		}
		m[k] = p
	}
	return m, nil
})

func probe(k Kind, inUser bool) Verdict {
	programs, err := probePrograms()
	if err != nil {
		return Verdict{Unknown, err, ""}
	}
	c := stage.Config{Program: programs[k], Cgroup: -1}
	if inUser {
		c.Namespaces = unix.CLONE_NEWUSER
		c.UIDMap, c.GIDMap = fmt.Sprintf("0 %d 1\n", os.Geteuid()), fmt.Sprintf("0 %d 1\n", os.Getegid())
	}
	child, err := stage.Start(c)
	if err != nil {
		return verdict(User, err, inUser)
	}
	defer unix.Close(child.Pidfd)
	defer child.Kill()
	defer child.Conn.Close()
	m, err := child.Conn.Recv()
	switch {
	case err == nil && m.Tag == probeTag:
		return Verdict{Answer: Yes}
	case err == io.EOF || err == nil:
		return Verdict{Unknown, errors.New("the probe process ended without an answer"), "a seccomp filter or security module may have killed it"}
	}
	return verdict(k, err, inUser)
}

// verdict tells a refusal from a failure of the probe itself.
func verdict(k Kind, err error, inUser bool) Verdict {
	if errors.Is(err, stage.ErrExecForbidden) {
		return Verdict{Unknown, err, ""}
	}
	for _, e := range []unix.Errno{unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSPC, unix.EUSERS, unix.ENOSYS} {
		if !errors.Is(err, e) {
			continue
		}
		help := remedy(k, e)
		if inUser && e == unix.EPERM {
			// With all capabilities in a namespace of one's own, only the machine's policy can refuse.
			help = userRemedy()
		}
		return Verdict{No, err, help}
	}
	return Verdict{Unknown, err, ""}
}
