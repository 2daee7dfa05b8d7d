package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/rootfs"
)

type config struct {
	listen, root          string
	parallel, queue, pool int
	grace                 time.Duration
	bestEffort            bool
}

func defaultConfig() config {
	return config{parallel: 2, queue: 64, grace: 10 * time.Second}
}

// judge runs programs in containers of a pool.
type judge struct {
	pool      *caisson.Pool
	languages map[string]*language
	limited   bool     // memory and processes can be limited
	notes     []string // what does not hold on this machine
}

// recipe is what all containers have in common.
func (cfg *config) recipe() []caisson.Option {
	opts := []caisson.Option{
		caisson.WithReadOnlyRoot(true),
		caisson.WithoutDefaultMounts(), caisson.WithMount(rootfs.MinimalMounts()...), // nothing of the machine is seen
		caisson.WithMount(rootfs.TmpfsMount(work, 64<<20), rootfs.TmpfsMount("/tmp", 64<<20)),
		caisson.WithCapabilities(), // none at all
		caisson.WithDir(work),
		caisson.WithEnv("HOME="+work, "LANG=C.UTF-8"),
		caisson.WithHostname("judge"),
		caisson.WithMemory(defaultLimits.MemoryBytes),
		caisson.WithPids(defaultLimits.Processes),
		caisson.WithBestEffort(cfg.bestEffort),
		caisson.WithWaitDelay(5 * time.Second),
	}
	if cfg.root != "" {
		opts = append(opts, caisson.WithRootfs(rootfs.Dir(cfg.root)))
	}
	return opts
}

// newJudge fills a pool and finds out what holds on this machine.
func newJudge(ctx context.Context, cfg config) (*judge, error) {
	size := cfg.pool
	if size <= 0 {
		size = 2 * cfg.parallel
	}
	pool, err := caisson.NewPool(caisson.PoolConfig{Size: size, Parallel: min(cfg.parallel, size), Recycle: true}, cfg.recipe()...)
	if err != nil {
		return nil, err
	}
	j := &judge{pool: pool, languages: findLanguages(cfg.root)}
	c, err := pool.Get(ctx, caisson.WithCommand("true")) // it is not run
	if err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	iso := c.Isolation()
	if err := c.Close(); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	_, j.limited = iso.Get("memory limit")
	for _, m := range iso.Missing() {
		j.notes = append(j.notes, m.Name+": "+m.Reason)
	}
	return j, nil
}

// run runs a request that has been checked, after its compiler, if it needs one.
func (j *judge) run(ctx context.Context, r *Request) *Response {
	files := []caisson.Option{}
	for name, text := range r.Files {
		files = append(files, caisson.WithFile(path.Join(work, name), []byte(text), 0o644))
	}
	command := r.Args
	if l := j.languages[r.Language]; l != nil {
		command = l.Run
		source := caisson.WithFile(path.Join(work, l.File), []byte(r.Source), 0o644)
		if l.Compile == nil {
			files = append(files, source)
		} else {
			program, failed := j.compile(ctx, l, append(files, source))
			if failed != nil {
				return failed
			}
			files = append(files, caisson.WithFile(compiled, program, 0o755))
		}
	}
	resp, stdout := j.contain(ctx, command, r.Limits, append(files, caisson.WithStdin(strings.NewReader(r.Stdin))))
	if resp.Verdict == accepted && r.Want != nil && !sameAnswer(string(stdout), *r.Want) {
		resp.Verdict = wrongAnswer
	}
	resp.Notes = append(resp.Notes, j.notes...)
	return resp
}

// compile returns the program that a compiler, contained like what it compiles, makes.
func (j *judge) compile(ctx context.Context, l *language, files []caisson.Option) ([]byte, *Response) {
	resp, program := j.contain(ctx, l.Compile, compileLimits, files)
	switch {
	case resp.Verdict == internal:
		return nil, resp
	case resp.Verdict != accepted:
		if resp.Verdict != runtimeError { // a limit
			resp.Notes = append(resp.Notes, "the compiler: "+resp.Verdict)
		}
		resp.Verdict, resp.Stdout = compileError, ""
		return nil, resp
	}
	return program, nil
}

// contain runs a command in a container of its own. The standard output is returned also as it is.
func (j *judge) contain(ctx context.Context, command []string, l Limits, more []caisson.Option) (*Response, []byte) {
	var stdout, stderr bytes.Buffer
	opts := append([]caisson.Option{
		caisson.WithCommand(command[0], command[1:]...),
		caisson.WithStdout(&stdout), caisson.WithStderr(&stderr), caisson.WithOutputLimit(l.OutputBytes),
		caisson.WithTimeout(l.wall()), caisson.WithCPUTime(l.cpu()),
	}, more...)
	if j.limited {
		opts = append(opts, caisson.WithMemory(l.MemoryBytes), caisson.WithPids(l.Processes))
	}
	res, err := j.pool.Run(ctx, opts...)
	if err != nil {
		return failure(err), nil
	}
	resp := &Response{Verdict: verdictOf(res), ExitCode: res.ExitCode, Stdout: text(stdout.Bytes()), Stderr: text(stderr.Bytes()),
		WallMillis: millis(res.Wall), CPUMillis: cpuOf(res), MemoryBytes: value(res.PeakMemory), Processes: value(res.PeakPids)}
	if res.Signal != 0 && res.Reason == caisson.ReasonSignaled {
		resp.Signal = res.Signal.String()
	}
	switch res.Reason {
	case caisson.ReasonCPUTime:
		resp.Notes = append(resp.Notes, "processor time")
	case caisson.ReasonDiskLimit:
		resp.Notes = append(resp.Notes, "no space left to write")
	case caisson.ReasonCanceled, caisson.ReasonStopped, caisson.ReasonUnknown:
		resp.Error = res.String()
	}
	if n, ok := res.PeakPids.Get(); ok && n >= uint64(l.Processes) {
		resp.Notes = append(resp.Notes, "the limit of processes was reached")
	}
	return resp, stdout.Bytes()
}

// failure is what is told when a command could not be started. That it is not there, or is no program, is its own fault.
func failure(err error) *Response {
	r := &Response{Verdict: internal, ExitCode: -1, Error: err.Error()}
	if errors.Is(err, caisson.ErrCommandNotFound) || errors.Is(err, caisson.ErrCommandNotExecutable) {
		r.Verdict, r.Error = runtimeError, ""
		r.Notes = []string{"the command cannot be executed"}
	}
	var died *caisson.DiedError
	if errors.As(err, &died) && died.Result.Reason == caisson.ReasonOOM {
		r.Verdict, r.Error = memoryLimit, ""
	}
	return r
}

// verdictOf translates a result. Whether the answer is right is not its business.
func verdictOf(r *caisson.Result) string {
	switch r.Reason {
	case caisson.ReasonExited, caisson.ReasonSignaled, caisson.ReasonDiskLimit:
		if r.Success() {
			return accepted
		}
		return runtimeError
	case caisson.ReasonOOM:
		return memoryLimit
	case caisson.ReasonTimeout, caisson.ReasonCPUTime:
		return timeLimit
	case caisson.ReasonOutputLimit:
		return outputLimit
	}
	return internal
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func cpuOf(r *caisson.Result) *float64 {
	d, ok := r.CPU.Get()
	if !ok {
		return nil
	}
	ms := millis(d)
	return &ms
}

func value(v cgroups.Value[uint64]) *uint64 {
	n, ok := v.Get()
	if !ok {
		return nil
	}
	return &n
}

// text makes output fit for JSON.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

func (c config) String() string {
	return fmt.Sprintf("%d at a time, %d may wait", c.parallel, c.queue)
}
