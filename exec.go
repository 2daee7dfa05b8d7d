package caisson

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/caisson-go/caisson/cgroups"
)

// Exec starts another process in the running container: in its namespaces, its root filesystem and its cgroup. Any number
// can run at once, each with streams, a terminal and a [Result] of its own.
//
// What the options do not say is as in the container's own options: environment, user, directory, capabilities, seccomp
// filter and the other limits of what a process may do. Not taken over are the command, streams, terminal and extra
// files, what ends a process (context, time, output), and limits of the cgroup: limits given here are those of a group
// of the process's own below the container's, so that both hold. [WithOOMScoreAdj] is not taken over either.
//
// The process takes on its final credentials before it appears in the container, and holds nothing of the host program
// that processes there could reach. It ends with the container, and with the host program, also in a container that
// outlives that. What ends it (Kill, [WithTimeout], [WithContext], [WithOutputLimit]) does not concern the container.
//
// ctx bounds the call. Errors: those of [Container.Start]; one that matches [ErrState] unless the container is running.
func (c *Container) Exec(ctx context.Context, opts ...ProcessOption) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, c.fail("exec", err)
	}
	run, _, err := c.live("exec", StateRunning)
	if err != nil {
		return nil, err
	}
	s, err := c.execSpec(opts)
	if err != nil {
		return nil, c.fail("exec", err)
	}
	p, err := run.exec(ctx, s)
	return p, c.fail("exec", err)
}

// execSpec is the container's wish with another process.
func (c *Container) execSpec(opts []ProcessOption) (*spec, error) {
	s := *c.spec
	s.hooks, s.log, s.health, s.attachable = hooksSpec{}, nil, nil, false // they are the container's
	p := &s.process
	p.args, p.commandFile = nil, nil
	p.stdin, p.stdout, p.stderr, p.extraFiles = nil, nil, nil, nil
	p.terminal, p.rows, p.cols = false, 0, 0
	p.resources, p.pidsSet = cgroups.Resources{}, false
	p.timeout, p.cpuTime, p.waitDelay, p.outputLimit = 0, 0, 0, 0
	p.ctx, p.cancel, p.oomScoreAdj = nil, nil, nil
	p.engine = engineSpec{}
	if cpus := s.bundle.execCPUs.final; cpus != "" {
		p.attrs.cpus = &cpus
	}
	for _, o := range opts {
		if o != nil {
			o.applyProcess(p)
		}
	}
	s.detach, s.trace, s.network, s.netDevices = detachSpec{}, nil, nil, nil
	s.sysctls, s.cgroup, s.deviceRules, s.bundle.deviceRules = nil, CgroupConfig{}, nil, nil
	err := errors.Join(append(p.validateLimits(), p.validate())...)
	if p.seccomp != c.spec.process.seccomp {
		err = errors.Join(err, p.validateSeccomp())
	}
	if s.alone {
		err = errors.Join(err, fmt.Errorf("%w: without namespaces there is nothing to join", ErrUnsupported))
	}
	if !isZero(p.resources) && s.cgroupOff {
		err = errors.Join(err, invalid("WithoutCgroup", "the container has no cgroup that limits could be below"))
	}
	return &s, err
}

// gate lets starts of further processes through until it is shut.
type gate struct {
	mu   sync.Mutex
	shut bool
	in   sync.WaitGroup
	stop chan struct{} // closed when the gate is shut; nil until somebody asks
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut {
		g.in.Add(1)
	}
	return !g.shut
}

// during is enter for what can take long: the context that it returns ends, with cause, when the gate is shut. leave is to be
// called at the end.
func (g *gate) during(ctx context.Context, cause error) (_ context.Context, leave func(), ok bool) {
	if !g.enter() {
		return ctx, nil, false
	}
	g.mu.Lock()
	if g.stop == nil {
		g.stop = make(chan struct{})
		if g.shut {
			close(g.stop)
		}
	}
	stop := g.stop
	g.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-stop:
			cancel(cause)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); g.in.Done() }, true
}

// close lets nobody in any more, and waits for those inside.
func (g *gate) close() {
	g.mu.Lock()
	if !g.shut && g.stop != nil {
		close(g.stop)
	}
	g.shut = true
	g.mu.Unlock()
	g.in.Wait()
}
