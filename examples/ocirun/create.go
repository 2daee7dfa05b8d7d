package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
)

// wish is what the options of create, run and exec say about a process.
type wish struct {
	bundle, config, pidFile, console, pidfdSocket *string
	preserve                                      *int
	noPivot, noKeyring, detach                    *bool
	restore                                       *caisson.RestoreConfig
}

func (f *flags) wish(container bool) *wish {
	w := &wish{pidFile: f.str("pid-file", "", ""), console: f.str("console-socket", "", ""), pidfdSocket: f.str("pidfd-socket", "", ""),
		preserve: f.Int("preserve-fds", 0, "")}
	if container {
		w.bundle, w.config = f.str("bundle", "b", "."), f.str("config", "f", "config.json")
		w.noPivot, w.noKeyring = f.toggle("no-pivot", ""), f.toggle("no-new-keyring", "")
		f.toggle("no-subreaper", "")
	}
	return w
}

func create(ctx context.Context, g *global, args []string) error {
	f := newFlags("create", "CONTAINER", 1, 1)
	w := f.wish(true)
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	c, err := g.make(w, args[0], true)
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := c.Create(ctx)
	if err != nil {
		g.forgetFailed(args[0], err)
		return explain(args[0], err)
	}
	return g.orRemove(ctx, c, w.announce(p))
}

// orRemove removes a container of which nobody would know.
func (g *global) orRemove(ctx context.Context, c *caisson.Container, err error) error {
	if err != nil {
		err = errors.Join(err, c.Remove(ctx))
		g.forgetNotify(c.ID())
	}
	return err
}

// announce tells the callers the process.
func (w *wish) announce(p *caisson.Process) error {
	if *w.pidfdSocket != "" {
		if err := p.PassPidfd(*w.pidfdSocket); err != nil {
			return err
		}
	}
	return writePid(*w.pidFile, p.Pid())
}

// writePid writes a process id so that nobody sees half of it.
func writePid(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// make reads a bundle and makes a container of it.
func (g *global) make(w *wish, id string, leaves bool, more ...caisson.Option) (*caisson.Container, error) {
	s, dir, err := caisson.ReadBundle(*w.bundle, *w.config)
	if err != nil {
		return nil, err
	}
	g.debugf("container %s of bundle %s, state in %s", id, dir, g.root)
	g.warnOfCapabilities(s.Process)
	g.adapt(s, id)
	bundle, err := caisson.FromSpec(s, dir)
	if err != nil {
		return nil, err
	}
	files, env, err := w.files()
	if err != nil {
		return nil, err
	}
	opts := []caisson.Option{bundle, caisson.WithID(id), caisson.WithDetached(true), caisson.WithStateDir(g.root), caisson.WithoutKeeper(),
		caisson.WithExtraFiles(files...), caisson.WithEnv(env...), caisson.WithLogger(g.logger())}
	if err := os.MkdirAll(filepath.Dir(g.root), 0o755); err != nil {
		return nil, err
	}
	if *w.noKeyring {
		opts = append(opts, caisson.WithHostKeyring(true))
	}
	if g.mayLackCgroups() {
		opts = append(opts, caisson.WithBestEffort(true))
	}
	if g.cgroupManager == "disabled" {
		opts = append(opts, caisson.WithoutCgroup())
	}
	terminal := s.Process != nil && s.Process.Terminal
	streams, err := w.streams(terminal, leaves)
	if err != nil {
		return nil, err
	}
	maps, err := ownMaps(s)
	if err != nil {
		return nil, err
	}
	notify, err := g.notifyOption(id)
	if err != nil {
		return nil, err
	}
	opts = append(opts, notify, streams, maps)
	if w.restore != nil {
		opts = append(opts, caisson.WithRestoreConfig(*w.restore))
	}
	c, err := caisson.New(append(opts, more...)...)
	if err != nil && notify != nil {
		if _, known := g.dir().Info(context.Background(), id); errors.Is(known, caisson.ErrNotFound) {
			g.forgetNotify(id)
		}
	}
	return c, err
}

// warnOfCapabilities tells names that no kernel has.
func (g *global) warnOfCapabilities(p *specs.Process) {
	for _, name := range caisson.UnknownCapabilities(p) {
		g.write("warning", fmt.Sprintf("process.capabilities: no kernel has %s: left out", name))
	}
}

// ownMaps: an engine of an ordinary user has made a user namespace already, in which this program is root. All its ids are to
// be in the container, under the same numbers.
func ownMaps(s *specs.Spec) (caisson.Option, error) {
	if os.Geteuid() != 0 || wholeMachine() || s.Linux == nil ||
		slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }) {
		return nil, nil
	}
	maps, err := namespaces.IDMapsOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	for _, l := range [][]namespaces.IDMap{maps.UID, maps.GID} {
		for i := range l {
			l[i].HostID = l[i].ContainerID
		}
	}
	return caisson.WithIDMaps(maps), nil
}

// adapt fills in what the global options say about a configuration.
func (g *global) adapt(s *specs.Spec, id string) {
	if s.Linux == nil {
		return
	}
	if g.systemd && s.Linux.CgroupsPath == "" {
		s.Linux.CgroupsPath = ":ocirun:" + id
	}
	if g.cgroupManager == "disabled" {
		s.Linux.CgroupsPath, s.Linux.Resources = "", nil
	}
}

// mayLackCgroups: ordinary users often have none.
func (g *global) mayLackCgroups() bool {
	if g.rootless != "auto" {
		return g.rootless == "true"
	}
	return os.Geteuid() != 0 || !wholeMachine()
}

// wholeMachine reports whether all ids of the machine are ids here: this is the first user namespace.
func wholeMachine() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err != nil || len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}

// streams connects the process with this program's streams, or its terminal with the console socket.
func (w *wish) streams(terminal, leaves bool) (caisson.ProcessOption, error) {
	switch socket := *w.console; {
	case terminal && leaves && socket == "":
		return nil, errors.New("cannot allocate tty if ocirun will detach without setting console socket")
	case terminal && socket == "" && !hasTerminal():
		return nil, errors.New("cannot allocate tty: neither a standard stream of ocirun is a terminal, nor does it have a controlling one; give the process none (process.terminal of config.json), or use --detach with --console-socket")
	case socket != "" && !(terminal && leaves):
		return nil, errors.New("cannot use console socket if ocirun will not detach or allocate tty")
	case socket != "":
		path, err := filepath.Abs(socket)
		return caisson.WithConsoleSocket(path), err
	case terminal:
		return caisson.ProcessOptions(caisson.WithStdin(os.Stdin), caisson.WithStdout(os.Stdout)), nil
	}
	return caisson.WithStdio(), nil
}

// files are the descriptors that the caller hands over from 3 on: those of LISTEN_FDS (sd_listen_fds(3)), then --preserve-fds.
func (w *wish) files() (files []*os.File, env []string, err error) {
	listen, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid := os.Getenv("LISTEN_PID"); listen <= 0 || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		listen = 0
	}
	if listen > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(listen), "LISTEN_PID=1")
		if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
			env = append(env, "LISTEN_FDNAMES="+names)
		}
	}
	if *w.preserve < 0 {
		return nil, nil, fmt.Errorf("--preserve-fds: %d is negative", *w.preserve)
	}
	for fd := 3; fd < 3+listen+*w.preserve; fd++ {
		if !isInherited(fd) {
			return nil, nil, fmt.Errorf("please check that preserved-fd %d (of %d) is present", fd-3, *w.preserve)
		}
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("descriptor %d", fd)))
	}
	return files, env, nil
}

func start(ctx context.Context, g *global, args []string) error {
	args, err := newFlags("start", "CONTAINER", 1, 1).parse(args)
	if err != nil {
		return err
	}
	c, err := g.load(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	switch c.State() {
	case caisson.StateStopped:
		return errors.New("cannot start a container that has stopped")
	case caisson.StateRunning, caisson.StatePaused:
		return errors.New("cannot start an already running container")
	}
	n, err := g.notifier(args[0])
	if err != nil {
		return err
	}
	defer n.close()
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	return n.pass(ctx, p, p.Pid())
}
