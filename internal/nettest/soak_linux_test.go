package nettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/netns"
	"github.com/caisson-go/caisson/rootfs"
)

// soakTimeEnv names the environment variable that says how long the mixed soak test lasts: 5m, 2h.
const soakTimeEnv = "CAISSON_SOAK_TIME"

// What the programs of the soak test find in their environment.
const (
	soakStateEnv  = "CAISSON_TEST_SOAK_STATE"
	soakStoreEnv  = "CAISSON_TEST_SOAK_STORE"
	soakDirEnv    = "CAISSON_TEST_SOAK_DIR"
	soakPrefixEnv = "CAISSON_TEST_SOAK_PREFIX"
	soakSeedEnv   = "CAISSON_TEST_SOAK_SEED"
	soakUnsureEnv = "CAISSON_TEST_SOAK_UNSURE"
)

// soakImage is the image in the store, soakNetwork the network that all share.
const soakImage, soakNetwork = "box", "soak"

// soaker is a program that does whatever can be done with containers, until it is killed. It names its containers with a prefix, so that
// nobody else changes them; the store, the network, the state directory and the journals are shared with other such programs.
type soaker struct {
	ctx     context.Context
	r       *rand.Rand
	state   caisson.StateDir
	store   *image.Store
	network *netns.Bridge
	dir     string
	prefix  string
	unsure  []string // what a program that was killed was about to start or to remove
	limits  bool
	n       int
}

// soakDeeds are what a soaker does, at random.
var soakDeeds = []struct {
	name string
	do   func(*soaker) error
}{
	{"run", (*soaker).run}, {"pool", (*soaker).pool}, {"detach", (*soaker).detach}, {"visit", (*soaker).visit}, {"visit", (*soaker).visit},
	{"monitor", (*soaker).monitored}, {"image", (*soaker).image}, {"remove", (*soaker).remove}, {"recover", (*soaker).recover},
}

// roleSoak tells in lines what it does, and what is wrong.
func roleSoak() {
	s := &soaker{ctx: context.Background(), state: caisson.StateDir(os.Getenv(soakStateEnv)), dir: os.Getenv(soakDirEnv), prefix: os.Getenv(soakPrefixEnv),
		unsure: strings.Fields(os.Getenv(soakUnsureEnv))}
	var seed uint64
	_, err := fmt.Sscan(os.Getenv(soakSeedEnv), &seed)
	s.r = rand.New(rand.NewPCG(seed, 1))
	if err == nil {
		s.store, err = image.Open(os.Getenv(soakStoreEnv), image.Options{})
	}
	if err == nil {
		s.network, err = netns.NewBridge(netns.BridgeConfig{Name: soakNetwork})
	}
	s.limits = limitsHere()
	if err == nil {
		err = s.takeOver()
	}
	if err != nil {
		fmt.Println("error: begin:", err)
		return
	}
	for {
		d := soakDeeds[s.r.IntN(len(soakDeeds))]
		fmt.Println(d.name)
		if err := d.do(s); err != nil {
			fmt.Printf("error: %s: %v\n", d.name, err)
			return
		}
		fmt.Println("done")
	}
}

// roleSoakMonitor is the monitor of such a program.
func roleSoakMonitor() {
	b, err := netns.NewBridge(netns.BridgeConfig{Name: soakNetwork})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	caisson.MonitorMain(caisson.WithNetwork(b))
}

// limitsHere tells whether this user can limit memory and processes, and freeze.
func limitsHere() bool {
	m, err := cgroups.Default()
	if err != nil {
		return false
	}
	for _, a := range m.Check() {
		if (cgroups.Memory | cgroups.Pids | cgroups.Freezer).Has(a.Controller) && !a.Usable {
			return false
		}
	}
	return true
}

// sh is a script; with limits where there are some.
func (s *soaker) sh(script string, opts ...caisson.Option) []caisson.Option {
	opts = append(opts, caisson.WithCommand("/bin/sh", "-c", script))
	if s.limits {
		opts = append(opts, caisson.WithMemory(64<<20), caisson.WithPids(30))
	}
	return opts
}

// run has a container of the image in the network for a moment; its context may end before it does.
func (s *soaker) run() error {
	code := s.r.IntN(100)
	c, err := caisson.New(s.sh(fmt.Sprintf("ip addr >/tmp/x && grep -q eth0 /tmp/x && exit %d", code), caisson.WithRootfs(s.store.Rootfs(soakImage)), caisson.WithNetwork(s.network))...)
	if err != nil {
		return err
	}
	ctx, cancel := s.ctx, func() {}
	if s.r.IntN(3) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.r.IntN(100))*time.Millisecond)
	}
	defer cancel()
	err = c.Run(ctx)
	var exit *caisson.ExitError
	switch {
	case errors.As(err, &exit) && exit.Result.ExitCode == code && exit.Result.Reason == caisson.ReasonExited, err == nil && code == 0:
		err = nil
	case ctx.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || exit != nil && exit.Result.Reason == caisson.ReasonCanceled):
		err = nil
	case err == nil:
		err = fmt.Errorf("exit code 0, not %d", code)
	}
	return errors.Join(err, c.Close())
}

// pool runs some commands in containers that were ready.
func (s *soaker) pool() error {
	p, err := caisson.NewPool(caisson.PoolConfig{Size: 2}, caisson.WithRootfs(s.store.Rootfs(soakImage)))
	if err != nil {
		return err
	}
	for range 1 + s.r.IntN(3) {
		var out bytes.Buffer
		res, e := p.Run(s.ctx, caisson.WithCommand("/bin/echo", "pooled"), caisson.WithStdout(&out))
		if e == nil && (!res.Success() || out.String() != "pooled\n") {
			e = fmt.Errorf("%v, %q", res, out.String())
		}
		err = errors.Join(err, e)
	}
	return errors.Join(err, p.Close())
}

// id is a new one. Programs before this one, of the same prefix, may have had the number.
func (s *soaker) id() string {
	s.n++
	return fmt.Sprintf("%s%d-%d", s.prefix, os.Getpid(), s.n)
}

// own are the containers of this prefix.
func (s *soaker) own() (ids []string, err error) {
	list, err := s.state.List(s.ctx)
	for _, i := range list {
		if strings.HasPrefix(i.ID, s.prefix) {
			ids = append(ids, i.ID)
		}
	}
	return ids, err
}

// many keeps the machine from filling: there are enough containers that live on.
func (s *soaker) many() bool {
	ids, err := s.own()
	return err != nil || len(ids) >= 4
}

// detach starts a container that lives on, in the network.
func (s *soaker) detach() error {
	if s.many() {
		return s.remove()
	}
	id := s.id()
	return s.begin(id, s.sh("sleep 100000", caisson.WithRootfs(s.store.Rootfs(soakImage).Lease(id)), caisson.WithNetwork(s.network)))
}

// monitored starts one that has a monitor, and by it a network, a log and checks of its health.
func (s *soaker) monitored() error {
	if s.many() {
		return s.remove()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	id := s.id()
	return s.begin(id, s.sh("while sleep 0.2; do echo line; done", caisson.WithRootfs(rootfs.Overlay(s.dir)), caisson.WithLog(caisson.LogConfig{Path: filepath.Join(s.dir, "../logs", id)}),
		caisson.WithHealthCheck(caisson.HealthCheck{Command: []string{"/bin/true"}, Interval: time.Second}),
		caisson.WithMonitor(caisson.Monitor{Path: self, Env: append(os.Environ(), testutil.RoleEnv+"=soak monitor")})))
}

func (s *soaker) begin(id string, opts []caisson.Option) error {
	c, err := caisson.New(append(opts, caisson.WithID(id), caisson.WithDetached(true), caisson.WithStateDir(string(s.state)))...)
	if err != nil {
		return err
	}
	fmt.Println("unsure", id)
	_, err = c.Start(s.ctx)
	if err == nil {
		fmt.Println("sure", id)
	}
	return errors.Join(err, c.Close())
}

// one is a container of this program's at random; nil if there is none.
func (s *soaker) one() (*caisson.Container, error) {
	ids, err := s.own()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return s.state.Load(s.ctx, ids[s.r.IntN(len(ids))], netns.Owner())
}

// visit does something in a container that lives.
func (s *soaker) visit() error {
	c, err := s.one()
	if c == nil {
		return err
	}
	switch s.r.IntN(6) {
	case 0:
		err = s.exec(c)
	case 1:
		_, err = c.Top(s.ctx)
	case 2:
		err = s.mount(c)
	case 3:
		if s.limits {
			err = errors.Join(c.Pause(s.ctx), c.Resume(s.ctx), s.exec(c))
		}
	case 4:
		if s.limits {
			err = c.Update(s.ctx, cgroups.Resources{Memory: cgroups.MemoryResources{Max: int64(64+s.r.IntN(64)) << 20}})
		}
	case 5:
		if s.limits {
			_, err = c.Stats(s.ctx)
		}
	}
	return errors.Join(err, c.Close())
}

// exec runs a command beside the container's, or gives up one that does not end.
func (s *soaker) exec(c *caisson.Container) error {
	if s.r.IntN(3) == 0 {
		ctx, cancel := context.WithTimeout(s.ctx, time.Duration(s.r.IntN(50))*time.Millisecond)
		defer cancel()
		p, err := c.Exec(ctx, caisson.WithCommand("/bin/sleep", "100000"))
		if err == nil {
			_, err = p.Wait(s.ctx)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		return err
	}
	var out bytes.Buffer
	p, err := c.Exec(s.ctx, caisson.WithCommand("/bin/echo", "of use"), caisson.WithStdout(&out))
	if err != nil {
		return err
	}
	if r, err := p.Wait(s.ctx); err != nil || !r.Success() || out.String() != "of use\n" {
		return fmt.Errorf("exec: %v, %v, %q", r, err, out.String())
	}
	return nil
}

// mount brings a file system and a file, and takes the file system away.
func (s *soaker) mount(c *caisson.Container) error {
	err := c.Mount(s.ctx, rootfs.TmpfsMount("/var", 1<<20))
	if err == nil {
		err = errors.Join(c.CopyIn(s.ctx, "/etc/passwd", "/var/passwd"), c.Unmount(s.ctx, "/var"))
	}
	return err
}

// image makes and removes names, images and snapshots of the store.
func (s *soaker) image() error {
	name := strings.ToLower(s.id())
	if err := s.store.Tag(s.ctx, soakImage, name); err != nil {
		return err
	}
	sn, err := s.store.NewSnapshot(s.ctx, name, name, image.SnapshotOptions{})
	if err == nil {
		err = errors.Join(sn.Seal(s.ctx), s.store.RemoveSnapshot(s.ctx, name))
	}
	if err := errors.Join(err, s.store.Remove(s.ctx, name)); err != nil {
		return err
	}
	if s.r.IntN(4) > 0 {
		return nil
	}
	_, err = s.store.GC(s.ctx)
	return err
}

// remove removes one of the containers.
func (s *soaker) remove() error {
	c, err := s.one()
	if c == nil {
		return err
	}
	return s.take(c)
}

// take removes a container and what the store keeps for it.
func (s *soaker) take(c *caisson.Container) error {
	fmt.Println("unsure", c.ID())
	err := c.Remove(s.ctx)
	if e := s.store.DropLease(s.ctx, c.ID()); !errors.Is(e, image.ErrNotFound) {
		err = errors.Join(err, e)
	}
	if err == nil {
		fmt.Println("sure", c.ID())
	}
	return errors.Join(err, c.Close())
}

func (s *soaker) recover() error {
	_, err := caisson.Recover(s.ctx, netns.Owner())
	_, err2 := s.state.Recover(s.ctx, netns.Owner())
	return errors.Join(err, err2)
}

// takeOver looks at what a killed program of the same prefix has left: every container is known, and those that run are of use.
func (s *soaker) takeOver() error {
	if err := s.recover(); err != nil {
		return err
	}
	for _, id := range s.unsure {
		var err error
		testutil.Eventually(testTime/4, func() bool { // its monitor may be about to start it
			var c *caisson.Container
			if c, err = s.state.Load(s.ctx, id, netns.Owner()); err == nil {
				err = s.take(c)
			}
			return !errors.Is(err, caisson.ErrState)
		})
		if err != nil && !errors.Is(err, caisson.ErrNotFound) {
			return err
		}
	}
	ids, err := s.own()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.revisit(id); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

func (s *soaker) revisit(id string) error {
	c, err := s.state.Load(s.ctx, id, netns.Owner())
	if err != nil {
		return err
	}
	if s.limits { // killed between pause and resume
		if err := c.Resume(s.ctx); err != nil && !errors.Is(err, caisson.ErrState) {
			return errors.Join(err, c.Close())
		}
	}
	if c.State() != caisson.StateRunning {
		return errors.Join(fmt.Errorf("it is %v", c.State()), c.Close())
	}
	// Killed before it took away what it mounted.
	if err := c.Unmount(s.ctx, "/var"); err != nil && !errors.Is(err, caisson.ErrNotMounted) {
		return errors.Join(err, c.Close())
	}
	return errors.Join(s.exec(c), c.Close())
}

// soakTime is how long the programs work.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv(soakTimeEnv)
	if s == "" {
		t.Skip("kills programs at random; " + soakTimeEnv + " says how long")
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("%s: %v", soakTimeEnv, err)
	}
	return d
}

// TestSoakMixed has programs do all kinds of things with containers, networks, images, pools and monitors at once, kills them at random and
// starts others in their place, which find in use what runs. At last everything can be removed, and nothing is left.
func TestSoakMixed(t *testing.T) {
	d := soakTime(t)
	testutil.NoLeaks(t)
	k := newSoak(t)
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for n := 0; time.Now().Before(end) && !t.Failed(); n++ {
				k.round(fmt.Sprintf("p%d-", i), uint64(2*n+i))
			}
		})
	}
	wg.Wait()
	k.clean()
	t.Logf("seed %d, %d programs killed, done: %v", k.seed, k.killed, k.done)
	if k.killed == 0 || len(k.done) < 3 {
		t.Error("too little for the test to mean something")
	}
}

// soak is a run of such programs.
type soak struct {
	t      *testing.T
	seed   uint64
	env    []string
	state  caisson.StateDir
	store  *image.Store
	mu     sync.Mutex
	r      *rand.Rand
	killed int
	done   map[string]int
	unsure map[string]map[string]bool // by prefix
}

func newSoak(t *testing.T) *soak {
	dir, box := t.TempDir(), testutil.Busybox(t)
	k := &soak{t: t, seed: uint64(time.Now().UnixNano()), state: caisson.StateDir(filepath.Join(dir, "state")), done: map[string]int{}, unsure: map[string]map[string]bool{}}
	k.r = rand.New(rand.NewPCG(k.seed, 2))
	if err := os.Mkdir(filepath.Join(box, "../logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	store, err := image.Open(filepath.Join(dir, "store"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	k.store = store
	t.Cleanup(func() { store.Close() })
	root := func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
	if _, err := store.Write(testContext(t), soakImage, image.ImageSpec{Layers: []image.Layer{image.DirLayer(image.Tree{Path: box}, image.TreeOptions{Owner: root})}}); err != nil {
		t.Fatal(err)
	}
	k.env = []string{soakStateEnv + "=" + string(k.state), soakStoreEnv + "=" + store.Dir(), soakDirEnv + "=" + box}
	return k
}

// round lets a program work for a while, and kills it.
func (k *soak) round(prefix string, n uint64) {
	out, err := os.CreateTemp(k.t.TempDir(), "out")
	if err != nil {
		k.t.Error(err)
		return
	}
	defer out.Close()
	k.mu.Lock()
	after := time.Duration(k.r.IntN(3000)) * time.Millisecond
	unsure := strings.Join(slices.Collect(maps.Keys(k.unsure[prefix])), " ")
	k.mu.Unlock()
	cmd := testutil.Role("soak", append(slices.Clip(k.env), soakPrefixEnv+"="+prefix, soakUnsureEnv+"="+unsure, fmt.Sprintf("%s=%d", soakSeedEnv, k.seed+n))...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		k.t.Error(err)
		return
	}
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	kill.Stop()
	k.judge(out.Name(), prefix, n)
}

// judge reads what a program said.
func (k *soak) judge(out, prefix string, n uint64) {
	b, err := os.ReadFile(out)
	if err != nil {
		k.t.Error(err)
	}
	_ = os.Remove(out)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.killed++
	unsure := k.unsure[prefix]
	if unsure == nil {
		unsure = map[string]bool{}
		k.unsure[prefix] = unsure
	}
	last := ""
	for line := range strings.Lines(string(b)) {
		verb, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch verb {
		case "done":
			k.done[last]++
		case "unsure":
			unsure[id] = true
		case "sure":
			delete(unsure, id)
		default:
			last = verb
		}
	}
	if i := strings.Index(string(b), "error: "); i >= 0 || strings.Contains(string(b), "panic") {
		k.t.Errorf("program %d: %s", n, b[max(i, 0):])
	}
}

// clean removes all that runs, and looks whether that is all.
func (k *soak) clean() {
	ctx := testContext(k.t)
	var left error
	if !testutil.Eventually(testTime/4, func() bool { left = k.removeAll(ctx); return left == nil }) {
		k.t.Errorf("left: %v", left)
	}
	checkEmpty(k.t)
	if faults, err := k.store.Verify(ctx); err != nil || len(faults) > 0 {
		k.t.Errorf("store: %v, %v", faults, err)
	}
}

// removeAll removes what there is. The error is what does not go away, or is there still.
func (k *soak) removeAll(ctx context.Context) error {
	_, err := caisson.Recover(ctx, netns.Owner())
	_, err2 := k.state.Recover(ctx, netns.Owner())
	list, err3 := k.state.List(ctx)
	err = errors.Join(err, err2, err3)
	for _, i := range list {
		c, e := k.state.Load(ctx, i.ID, netns.Owner())
		if e == nil {
			e = errors.Join(c.Remove(ctx), c.Close())
		}
		if e == nil {
			_ = k.store.DropLease(ctx, i.ID)
		}
		err = errors.Join(err, e)
	}
	if files, _ := os.ReadDir(string(k.state)); len(files) > 0 {
		err = errors.Join(err, fmt.Errorf("in the state directory: %v", files))
	}
	if l, e := net.Interfaces(); e != nil || len(l) != 1 {
		err = errors.Join(err, fmt.Errorf("devices: %v, %v", l, e))
	}
	return err
}
