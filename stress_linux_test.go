package caisson

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// stressEnv names the variable that says for how long containers are used in every way at once, such as 30m; stressSeedEnv the one that says
// with which seed, to have the same containers and calls again, though not in the same order.
const stressEnv, stressSeedEnv = "CAISSON_TEST_STRESS", "CAISSON_TEST_STRESS_SEED"

// Containers of all kinds, each used from many goroutines in every way at once, with contexts that end at any moment. Every call returns, and nothing is
// left; in a long run, each error is also one that is documented, and kinds that take longer take part.
func TestOneContainerFromManyGoroutines(t *testing.T) {
	noLeaks(t)
	long, err := time.ParseDuration(os.Getenv(stressEnv))
	if err != nil {
		long = 0
	}
	seed, err := strconv.ParseUint(os.Getenv(stressSeedEnv), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	s := &stress{t: t, d: stateDir(t), dir: t.TempDir(), src: dirOf(t), under: map[int]underWay{}, long: long > 0}
	if long > 0 {
		s.monitor = monitorOption(t)
	}
	defer s.watch()()
	r := rand.New(rand.NewPCG(seed, 1))
	before := testutil.Take()
	rounds, began := 0, time.Now()
	for ; !t.Failed() && (rounds < 2*len(stressKinds) || time.Since(began) < long); rounds++ {
		kind := stressKinds[rounds%len(stressKinds)]
		if kind.long && long == 0 {
			continue
		}
		s.round(kind, rand.New(rand.NewPCG(seed, r.Uint64())), rounds)
		if long > 0 {
			if before.Check(t); t.Failed() {
				t.Errorf("round %d, %s", rounds, kind.name)
			}
		}
	}
	t.Logf("%d rounds, %d calls, %d of them without an error", rounds, s.calls, s.fine)
}

// stress is one such test.
type stress struct {
	t       *testing.T
	d       StateDir
	dir     string // for copies, logs
	src     rootfs.Source
	monitor Option
	long    bool

	mu    sync.Mutex
	calls int
	fine  int // of them
	under map[int]underWay
}

type underWay struct {
	what  string
	since time.Time
}

// call makes a call. Its error is to be nil or one that is documented.
func (s *stress) call(what string, f func() error) {
	s.mu.Lock()
	s.calls++
	n := s.calls
	s.under[n] = underWay{what, time.Now()}
	s.mu.Unlock()
	err := f()
	s.mu.Lock()
	delete(s.under, n)
	if err == nil {
		s.fine++
	}
	s.mu.Unlock()
	if err != nil && !documented(err) {
		if s.long { // which errors come at the end of a container is for the kernel and the moment to decide
			s.t.Errorf("%s: %v", what, err)
		} else {
			s.t.Logf("%s: %v", what, err)
		}
	}
}

// watch ends the program when a call does not return.
func (s *stress) watch() (stop func()) {
	over := make(chan struct{})
	go func() {
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-over:
				tick.Stop()
				return
			case <-tick.C:
			}
			s.mu.Lock()
			for _, u := range s.under {
				if time.Since(u.since) > testTime {
					buf := make([]byte, 8<<20)
					fmt.Fprintf(os.Stderr, "%s has not returned since %v\n%s\n", u.what, u.since, buf[:runtime.Stack(buf, true)])
					panic(u.what + " does not return")
				}
			}
			s.mu.Unlock()
		}
	}()
	return func() { close(over) }
}

// errNetwork is why a network of this test cannot be had.
var errNetwork = errors.New("no network today")

// documented reports whether an error is one that the calls are said to return.
func documented(err error) bool {
	for _, e := range []error{context.Canceled, context.DeadlineExceeded, ErrState, ErrClosed, ErrStopped, ErrUnsupported, os.ErrProcessDone, ErrHelperKilled,
		ErrNotFound, ErrExists, ErrNotMounted, ErrBusy, ErrDetached, errNetwork, ErrPrivilege} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.As(err, new(*ExitError)) || errors.As(err, new(*DiedError)) || errors.As(err, new(*net.OpError))
}

// stressKind is a kind of container.
type stressKind struct {
	name string
	long bool // only in long runs
	opts func(s *stress, r *rand.Rand, n int) []Option
}

func (s *stress) detached(n int) Option {
	return Options(WithDetached(true), WithStateDir(string(s.d)), WithID("stress-"+strconv.Itoa(n)))
}

var stressKinds = []stressKind{
	{"plain", false, func(s *stress, r *rand.Rand, n int) []Option { return nil }},
	{"detached", false, func(s *stress, r *rand.Rand, n int) []Option { return []Option{s.detached(n)} }},
	{"limits", false, func(s *stress, r *rand.Rand, n int) []Option {
		return []Option{WithTimeout(s.some(r, 100*time.Millisecond)), WithOutputLimit(1 << 20), WithStdout(io.Discard), WithStderr(io.Discard)}
	}},
	{"removes itself", false, func(s *stress, r *rand.Rand, n int) []Option { return []Option{s.detached(n), WithAutoRemove(true)} }},
	{"restarts", false, func(s *stress, r *rand.Rand, n int) []Option {
		return []Option{WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: Backoff{Initial: time.Millisecond, Max: 10 * time.Millisecond}}),
			WithLog(LogConfig{Path: filepath.Join(s.dir, fmt.Sprint("log", n))})}
	}},
	{"attachable", false, func(s *stress, r *rand.Rand, n int) []Option {
		if r.IntN(2) == 0 {
			return []Option{WithTerminal(24, 80)}
		}
		return []Option{WithAttachable(true)}
	}},
	{"health", false, func(s *stress, r *rand.Rand, n int) []Option {
		return []Option{WithHealthCheck(HealthCheck{Command: []string{"/bin/true"}, Interval: 3 * time.Millisecond, Timeout: time.Second})}
	}},
	{"network", false, func(s *stress, r *rand.Rand, n int) []Option {
		return []Option{WithNetwork(&stressNetwork{stress: s, r: rand.New(rand.NewPCG(r.Uint64(), 2))})}
	}},
	{"network, detached", false, func(s *stress, r *rand.Rand, n int) []Option {
		return []Option{s.detached(n), WithNetwork(&stressNetwork{stress: s, r: rand.New(rand.NewPCG(r.Uint64(), 2))}), WithAutoRemove(r.IntN(2) == 0)}
	}},
	{"without a keeper", false, func(s *stress, r *rand.Rand, n int) []Option {
		return []Option{s.detached(n), WithoutKeeper(), WithAutoRemove(r.IntN(2) == 0)}
	}},
	{"monitor", true, func(s *stress, r *rand.Rand, n int) []Option {
		opts := []Option{s.detached(n), s.monitor, WithAttachable(true)}
		if r.IntN(2) == 0 {
			opts = append(opts, WithRestart(RestartPolicy{Mode: RestartAlways, Backoff: Backoff{Initial: time.Millisecond, Max: 10 * time.Millisecond}}))
		}
		return opts
	}},
}

// some is a random time, most often a short one.
func (s *stress) some(r *rand.Rand, max time.Duration) time.Duration {
	f := r.Float64()
	return time.Duration(f*f*float64(max)) + time.Microsecond
}

// stressNetwork is a network that takes its time, and fails now and then.
type stressNetwork struct {
	stress *stress
	mu     sync.Mutex
	r      *rand.Rand
	c      *Container // which is called back
}

func (n *stressNetwork) pause(ctx context.Context) error {
	n.mu.Lock()
	d, fails := n.stress.some(n.r, 5*time.Millisecond), n.r.IntN(20) == 0
	n.mu.Unlock()
	_, _, _ = n.c.State(), n.c.Isolation(), n.c.Process()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	if fails {
		return errNetwork
	}
	return nil
}

func (n *stressNetwork) Prepare(ctx context.Context, _ NetworkRequest) (NetworkAttachment, error) {
	if err := n.pause(ctx); err != nil {
		return nil, err
	}
	return &stressAttachment{n: n}, nil
}

type stressAttachment struct {
	n    *stressNetwork
	gone bool
}

func (a *stressAttachment) Files() []NetworkFile                              { return nil }
func (a *stressAttachment) Attach(ctx context.Context, _ NetworkTarget) error { return a.n.pause(ctx) }
func (a *stressAttachment) Record() (string, int, []byte)                     { return "stress.net", 1, []byte(`{}`) }
func (a *stressAttachment) Detach(context.Context) error {
	if a.gone {
		a.n.stress.t.Error("a network was detached twice")
	}
	a.gone = true
	_, _ = a.n.c.State(), a.n.c.Process()
	return nil
}

func (n *stressNetwork) Name() string                            { return "stress.net" }
func (n *stressNetwork) Undo(context.Context, int, []byte) error { return nil }

// round uses one container for a while.
func (s *stress) round(kind stressKind, r *rand.Rand, n int) {
	commands := []string{"exit 0", "exit 3", "sleep 0.01", "sleep 1000", "trap 'exit 4' TERM; while :; do sleep 0.01; done", "while read x; do echo $x; done; sleep 1000",
		"while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; sleep 0.001; done"}
	opts := append([]Option{WithRootfs(s.src), sh(commands[r.IntN(len(commands))])}, kind.opts(s, r, n)...)
	c, err := New(opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	var owners []Owner
	if net, ok := c.spec.network.(*stressNetwork); ok {
		net.c, owners = c, []Owner{net}
	}
	end := time.Now().Add(time.Duration(20+r.IntN(60)) * time.Millisecond)
	if kind.long || testutil.Slow() {
		end = end.Add(time.Second)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var over bool
	handles := []*Container{c}
	for g := range 8 + r.IntN(8) {
		u := &stressUser{stress: s, c: c, r: rand.New(rand.NewPCG(r.Uint64(), uint64(g))), kind: kind.name, n: n}
		all.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				if c.spec.detach.on && u.r.IntN(20) == 0 { // as another program has it
					if l, err := s.d.Load(context.Background(), c.ID(), owners...); err == nil {
						mu.Lock()
						if handles = append(handles, l); over {
							l.Close()
						}
						mu.Unlock()
						u.c = l
					}
				}
				u.one(i == 0 && g < 2)
				time.Sleep(s.some(u.r, 2*time.Millisecond))
			}
		})
	}
	if r.IntN(2) == 0 { // else in the midst of all
		time.Sleep(time.Until(end))
	} else {
		time.Sleep(s.some(r, time.Until(end)))
	}
	if c.spec.detach.on {
		s.call(kind.name+": Remove at the end", func() error { return c.Remove(context.Background()) })
	}
	mu.Lock()
	over = true
	for _, h := range handles {
		s.call(kind.name+": Close", h.Close)
	}
	mu.Unlock()
	all.Wait()
	if !c.spec.detach.on {
		return
	}
	for { // a start that came after the end, or let go of
		l, err := s.d.Load(context.Background(), c.ID(), owners...)
		if err != nil {
			if !errors.Is(err, ErrNotFound) {
				s.t.Errorf("%s: load: %v", kind.name, err)
			}
			return
		}
		s.call(kind.name+": Remove", func() error { return l.Remove(context.Background()) })
	}
}

// stressUser is a goroutine that uses a container.
type stressUser struct {
	*stress
	c    *Container
	r    *rand.Rand
	kind string
	n    int
}

// one makes one call.
func (u *stressUser) one(start bool) {
	ctx, cancel := context.WithTimeout(context.Background(), u.some(u.r, 40*time.Millisecond))
	if u.r.IntN(3) == 0 {
		cancel()
		ctx, cancel = context.WithCancel(context.Background())
	}
	defer cancel()
	names := stressNames
	name := names[u.r.IntN(len(names))]
	if start {
		name = "Start"
	}
	what := fmt.Sprintf("%s %d: %s", u.kind, u.n, name)
	u.call(what, func() error { return stressCalls[name](u, ctx) })
}

var stressNames []string

func init() {
	for name := range stressCalls {
		weight := map[string]int{"Start": 4, "Create": 2, "Exec": 3, "Stop": 2, "Kill": 2, "Close": 0}[name]
		for range max(weight, 1) {
			stressNames = append(stressNames, name)
		}
	}
	slices.Sort(stressNames)
}

// bounded is for calls that would wait as long as the container lives.
func (u *stressUser) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, u.some(u.r, 30*time.Millisecond))
}

// stressCalls are what can be done with a container.
var stressCalls = map[string]func(u *stressUser, ctx context.Context) error{
	"Start":  func(u *stressUser, ctx context.Context) error { _, err := u.c.Start(ctx); return err },
	"Create": func(u *stressUser, ctx context.Context) error { _, err := u.c.Create(ctx); return err },
	"Run": func(u *stressUser, ctx context.Context) error {
		ctx, cancel := u.bounded(ctx)
		defer cancel()
		return u.c.Run(ctx)
	},
	"Wait": func(u *stressUser, ctx context.Context) error { // without an end of its own: the container's end is enough
		_, err := u.c.Wait(ctx)
		return err
	},
	"Signal": func(u *stressUser, ctx context.Context) error {
		return u.c.Signal([]syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGKILL}[u.r.IntN(3)])
	},
	"Stop": func(u *stressUser, ctx context.Context) error { return u.c.Stop(ctx, u.some(u.r, 20*time.Millisecond)) },
	"Kill": func(u *stressUser, ctx context.Context) error {
		if p := u.c.Process(); p != nil {
			return p.Kill()
		}
		return nil
	},
	"Exec": func(u *stressUser, ctx context.Context) error {
		opts := []ProcessOption{WithCommand("/bin/sh", "-c", []string{"exit 0", "sleep 1000", "sleep 0.005"}[u.r.IntN(3)])}
		if u.r.IntN(4) == 0 {
			opts = append(opts, WithPids(20))
		}
		if u.r.IntN(4) == 0 {
			opts = append(opts, WithTerminal(24, 80))
		}
		p, err := u.c.Exec(ctx, opts...)
		if err != nil {
			return err
		}
		bound, cancel := u.bounded(ctx)
		defer cancel()
		if _, err = p.Wait(bound); err == nil {
			return nil
		}
		if err := p.Kill(); err != nil {
			return err
		}
		_, err = p.Wait(context.Background())
		return err
	},
	"Dial": func(u *stressUser, ctx context.Context) error {
		conn, err := u.c.Dial(ctx, []string{"tcp", "unix"}[u.r.IntN(2)], []string{"127.0.0.1:9", "/tmp/none"}[u.r.IntN(2)])
		if err == nil {
			conn.Close()
		} else if errors.As(err, new(*net.AddrError)) {
			err = nil // an address of the other kind
		}
		return err
	},
	"Listen": func(u *stressUser, ctx context.Context) error {
		l, err := u.c.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		conn, err := u.c.Dial(ctx, "tcp", l.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err
	},
	"Pause":  func(u *stressUser, ctx context.Context) error { return u.c.Pause(ctx) },
	"Resume": func(u *stressUser, ctx context.Context) error { return u.c.Resume(ctx) },
	"Update": func(u *stressUser, ctx context.Context) error {
		var res cgroups.Resources
		res.Pids.Max = int64(64 + u.r.IntN(64))
		return u.c.Update(ctx, res)
	},
	"Stats":   func(u *stressUser, ctx context.Context) error { _, err := u.c.Stats(ctx); return err },
	"Summary": func(u *stressUser, ctx context.Context) error { _, err := u.c.StatsSummary(ctx); return err },
	"Top":     func(u *stressUser, ctx context.Context) error { _, err := u.c.Top(ctx); return err },
	"CopyFS": func(u *stressUser, ctx context.Context) error {
		return u.c.CopyFS(ctx, fstest.MapFS{"a/b": {Data: []byte("b")}, "c": {Data: []byte("c")}}, fmt.Sprint("/tmp/", u.r.IntN(3)))
	},
	"CopyOut": func(u *stressUser, ctx context.Context) error {
		dst := filepath.Join(u.dir, fmt.Sprint("out-", u.r.Uint64()))
		defer os.RemoveAll(dst)
		return u.c.CopyOut(ctx, "/etc", dst)
	},
	"Mount": func(u *stressUser, ctx context.Context) error {
		if err := u.c.Mount(ctx, rootfs.TmpfsMount("/mnt", 1<<20)); err != nil {
			return err
		}
		return u.c.Unmount(ctx, "/mnt")
	},
	"Unmount": func(u *stressUser, ctx context.Context) error { return u.c.Unmount(ctx, "/mnt", UnmountLazy) },
	"Events": func(u *stressUser, ctx context.Context) error {
		for _, err := range u.c.Events(ctx) {
			if err != nil {
				return err
			}
			if u.r.IntN(8) == 0 {
				return nil
			}
			_ = u.c.State()
		}
		return nil
	},
	"Logs": func(u *stressUser, ctx context.Context) error {
		for _, err := range u.c.Logs(ctx, LogOptions{Follow: true}) {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Attach": func(u *stressUser, ctx context.Context) error {
		in, write := io.Pipe()
		defer write.Close()
		a, err := u.c.Attach(ctx, AttachOptions{Stdin: in, Stdout: io.Discard})
		if err != nil {
			return err
		}
		go func() { _, _ = write.Write([]byte("hello\n")) }()
		bound, cancel := u.bounded(ctx)
		defer cancel()
		err = a.Wait(bound)
		return errors.Join(a.Close(), err)
	},
	"Health":       func(u *stressUser, ctx context.Context) error { _ = u.c.Health(); return nil },
	"RestartCount": func(u *stressUser, ctx context.Context) error { _ = u.c.RestartCount(); return nil },
	"State": func(u *stressUser, ctx context.Context) error {
		_, _, _ = u.c.State(), u.c.Isolation(), u.c.Process()
		return nil
	},
	"Root": func(u *stressUser, ctx context.Context) error {
		root, err := u.c.Root()
		if err != nil {
			return err
		}
		defer root.Close()
		_, err = root.Stat("/bin/sh")
		return err
	},
	"View": func(u *stressUser, ctx context.Context) error {
		v, err := u.c.LiveView(ctx)
		if err != nil {
			return err
		}
		return v.Close()
	},
	"SignalAll": func(u *stressUser, ctx context.Context) error { return u.c.SignalAll(syscall.SIGCONT) },
	"Pod": func(u *stressUser, ctx context.Context) error { // another container in its network
		c, err := New(WithRootfs(u.src), sh("exit 0"), WithNamespacesOf(u.c))
		if err != nil {
			return err
		}
		return errors.Join(c.Run(ctx), c.Close())
	},
	"Info": func(u *stressUser, ctx context.Context) error {
		if !u.c.spec.detach.on {
			return nil
		}
		_, err := u.d.Info(ctx, u.c.ID())
		return err
	},
	"Remove": func(u *stressUser, ctx context.Context) error {
		if !u.c.spec.detach.on || u.r.IntN(4) > 0 {
			return nil
		}
		return u.c.Remove(ctx)
	},
}
