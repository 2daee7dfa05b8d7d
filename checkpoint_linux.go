package caisson

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/state"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// The files in the directory of a checkpoint that are not CRIU's images.
const (
	checkpointNote = "caisson.json"
	dumpLog        = "dump.log"
)

// checkpointed is what a restore must know of a container beside CRIU's images.
type checkpointed struct {
	Version int `json:"version"`
	// Streams are the descriptors 0, 1 and so on of the first process, by the names under which CRIU knows what is
	// outside the container; empty for what is inside.
	Streams []string `json:"streams"`
	// Binds are the targets of bind mounts.
	Binds []string `json:"binds"`
	TCP   bool     `json:"tcp,omitempty"`
	Locks bool     `json:"locks,omitempty"`
	// Net says that the network namespace is one of others, and so no part of the images.
	Net             bool `json:"net,omitempty"`
	ExternalSockets bool `json:"externalSockets,omitempty"`
	ShellJob        bool `json:"shellJob,omitempty"`
	EmptyNetwork    bool `json:"emptyNetwork,omitempty"`
	IgnoreCgroups   bool `json:"ignoreCgroups,omitempty"`
}

// netKey is the name under which CRIU keeps a network namespace that comes from outside.
const netKey = "extRootNetNS"

// checkpointVersion changes when an older reader would restore something wrong.
const checkpointVersion = 1

// checkpoint has CRIU write the processes of a container.
func (r *running) checkpoint(ctx context.Context, p *Process, cfg CheckpointConfig) (err error) {
	if !privileged() {
		return errCRIURoot
	}
	facts, err := r.mayCheckpoint()
	if err != nil {
		return err
	}
	criu, err := findCRIU(ctx, cfg.Program)
	if err != nil {
		return err
	}
	undo, err := emptyDir(cfg.Dir)
	if err != nil {
		return err
	}
	note, args, err := r.noteOf(cfg, facts)
	if err == nil && !cfg.PreDump {
		err = writeNote(cfg.Dir, note)
	}
	if err == nil {
		err = r.dump(p, criu, cfg, args)
	}
	if err != nil {
		return errors.Join(err, undo())
	}
	if !cfg.goesOn() {
		p.attend()
		<-p.done
	}
	return nil
}

// mayCheckpoint refuses a container that has what cannot be taken along.
func (r *running) mayCheckpoint() (f checkpointFacts, err error) {
	if f, err = r.checkpointFacts(); err != nil {
		return f, err
	}
	if made, err := r.madeMounts(); f.Obstacle == "" && (err != nil || len(made) > 0) {
		f.Obstacle, f.Remedy = "mount that was added while it ran", "Unmount it before"
	}
	if f.Obstacle != "" {
		return f, withRemedy(f.Remedy, "%w: the container has a %s, which cannot be taken along", ErrUnsupported, f.Obstacle)
	}
	return f, nil
}

// checkpointFacts looks at the wishes for the container, or into its record where another program has made it.
func (r *running) checkpointFacts() (f checkpointFacts, err error) {
	if r.spec.detach.loaded {
		if len(r.det.run.checkpoint) == 0 {
			return f, fmt.Errorf("%w: the container was made by a release that did not record what a checkpoint must know", ErrUnsupported)
		}
		if err = codec.Unmarshal(r.det.run.checkpoint, &f); err != nil {
			err = fmt.Errorf("%w: checkpoint: %w", ErrCorruptState, err)
		}
		return f, err
	}
	f = checkpointFacts{Binds: r.spec.binds(), Extra: len(r.spec.process.extraFiles), JoinsNet: r.joinsNet()}
	if f.Obstacle, f.Remedy = r.spec.notInCheckpoint(); f.Obstacle == "" {
		f.Obstacle, f.Remedy = r.notRestorable()
	}
	return f, nil
}

// joinsNet reports whether the container is in a network namespace of others that is not this program's own.
func (r *running) joinsNet() bool { return r.joins.files[namespaces.Net] != nil }

// notRestorable names what the machine gave the container and a restored one cannot have.
func (r *running) notRestorable() (what, remedy string) {
	switch {
	case r.m.userns != usernsNone:
		return "user namespace", "as root, use rootfs.Dir or rootfs.Overlay without WithNamespace(namespaces.User, …)"
	case r.inMemory:
		return "writable layer in memory", "use rootfs.Overlay(…).Upper(dir), or rootfs.Dir(…).ReadOnly() or Writable()"
	}
	return "", ""
}

// dump runs CRIU. The processes die by its hand unless they are to go on. CRIU is not interrupted: its own code would be left in them.
func (r *running) dump(p *Process, criu string, cfg CheckpointConfig, args []string) error {
	work := cmp.Or(cfg.WorkDir, cfg.Dir)
	how := []string{"dump", "--tree", strconv.Itoa(r.child.Pid), "--images-dir", cfg.Dir, "--work-dir", work, "--log-file", dumpLog, "-v1"}
	switch {
	case cfg.PreDump:
		how[0] = "pre-dump"
	case cfg.LeaveRunning:
		how = append(how, "--leave-running")
	}
	parent, err := parentArgs(&cfg)
	if err != nil {
		return err
	}
	pages, files, err := pageArgs(&cfg)
	if err != nil {
		return err
	}
	cmd := exec.Command(criu, slices.Concat(how, parent, pages, args)...)
	cmd.ExtraFiles = files
	if cfg.goesOn() {
		return runCRIU(cmd, filepath.Join(work, dumpLog))
	}
	undo := p.because(ReasonCheckpointed)
	err = runCRIU(cmd, filepath.Join(work, dumpLog))
	if err != nil {
		undo()
		return err
	}
	if err := r.noteCheckpointed(); err != nil { // the images are whole, and all that is left of the container
		r.warn("note the checkpoint", err)
	}
	return nil
}

// parentArgs are those for a checkpoint that follows another. CRIU wants the way from the one to the other.
func parentArgs(cfg *CheckpointConfig) ([]string, error) {
	if cfg.Parent == "" {
		if cfg.PreDump {
			return []string{"--track-mem"}, nil
		}
		return nil, nil
	}
	f, err := openCheckpoint(cfg.Parent)
	if err != nil {
		return nil, fmt.Errorf("parent: %w", err)
	}
	f.Close()
	// CRIU goes there from where the directory really is.
	dir, err := filepath.EvalSymlinks(cfg.Dir)
	if err != nil {
		return nil, err
	}
	parent, err := filepath.EvalSymlinks(cfg.Parent)
	if err != nil {
		return nil, err
	}
	to, err := filepath.Rel(dir, parent)
	return []string{"--track-mem", "--prev-images-dir", to}, err
}

// pageArgs say where the memory goes; the files begin at descriptor 3 of CRIU.
func pageArgs(cfg *CheckpointConfig) (args []string, files []*os.File, err error) {
	if args, err = pageServer(cfg.PageServer); err != nil {
		return nil, nil, err
	}
	switch {
	case cfg.LazyPages:
		args = append(args, "--lazy-pages")
	case cfg.PageServer != "":
		args = append(args, "--page-server")
	}
	if cfg.Status != nil {
		args, files = append(args, "--status-fd", "3"), []*os.File{cfg.Status}
	}
	if cfg.AutoDedup {
		args = append(args, "--auto-dedup")
	}
	return args, files, nil
}

// because notes why the process is going to end, unless something else has ended it, and returns a function that takes that back.
func (p *Process) because(why Reason) (undo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason != ReasonUnknown {
		return func() {}
	}
	p.reason = why
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.reason == why {
			p.reason = ReasonUnknown
		}
	}
}

// noteCheckpointed records that the container has ended because it was written to disk, which is known only when CRIU has done so: another
// program may have seen the end, and called it a killing, before.
func (r *running) noteCheckpointed() error {
	if r.det == nil {
		return nil
	}
	err := r.det.change(func(rec *state.Record) bool {
		if rec.Phase == state.Stopped && rec.Result != nil {
			rec.Result.Reason = ReasonCheckpointed.String()
		} else {
			rec.Ending = ReasonCheckpointed.String()
		}
		return true
	})
	if errors.Is(err, ErrNotFound) {
		return nil // removed meanwhile
	}
	return err
}

// runCRIU runs a command of CRIU's, and returns what it has logged as errors.
func runCRIU(cmd *exec.Cmd, log string) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = []string{"PATH=" + rootfs.DefaultPath, "LC_ALL=C"}
	cmd.SysProcAttr = withPdeathsig(cmd.SysProcAttr)
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	said := errorsIn(log)
	if said == "" {
		said = strings.TrimSpace(out.String())
	}
	if said == "" {
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, said)
}

// withPdeathsig ends CRIU with the thread that started it, which is that of a caller who waits for it.
func withPdeathsig(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	if a == nil {
		a = &syscall.SysProcAttr{}
	}
	a.Pdeathsig = syscall.SIGKILL
	return a
}

// errorsIn returns the first errors that CRIU has logged, which are the causes of those that follow.
func errorsIn(log string) string {
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 1<<20))
	var said []string
	for line := range strings.Lines(string(b)) {
		if _, e, ok := strings.Cut(line, "Error ("); ok && len(said) < 3 {
			_, e, _ = strings.Cut(e, "): ")
			said = append(said, strings.TrimSpace(e))
		}
	}
	return strings.Join(said, "; ")
}

var errCRIURoot = fmt.Errorf("%w: %w: CRIU needs root", ErrUnsupported, ErrPrivilege)

// checkedCRIU remembers which programs were found to fit the kernel.
var checkedCRIU sync.Map

// findCRIU looks for the program and has it check the kernel, once.
func findCRIU(ctx context.Context, name string) (string, error) {
	if !privileged() {
		return "", errCRIURoot
	}
	if name == "" {
		name = "criu"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", withRemedy("install CRIU (Debian, Ubuntu, Fedora: package criu)", "%w: %w", ErrUnsupported, err)
	}
	if _, ok := checkedCRIU.Load(path); ok {
		return path, nil
	}
	out, err := exec.CommandContext(ctx, path, "check").CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return "", withRemedy("use a version of CRIU that is as new as the kernel", "%w: %s check: %w: %s", ErrUnsupported, path, err, first)
	}
	checkedCRIU.Store(path, true)
	return path, nil
}

// emptyDir makes a directory, or takes an empty one. The function that is returned empties it again, and removes it if it was made.
func emptyDir(dir string) (undo func() error, err error) {
	made := true
	if err := os.Mkdir(dir, 0o700); err != nil {
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		made = false
	}
	f, err := openCheckpoint(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if len(names) > 0 {
		return nil, invalid("CheckpointConfig", "the directory %s is not empty", dir)
	}
	if err != io.EOF {
		return nil, err
	}
	return func() error {
		names, err := os.ReadDir(dir)
		for _, n := range names {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, n.Name())))
		}
		if made {
			err = errors.Join(err, os.Remove(dir))
		}
		return err
	}, nil
}

// openCheckpoint opens a directory that nobody but root can have written to.
func openCheckpoint(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && (int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0) {
		err = withRemedy("make it root's own, with mode 0700", "%w: others can write to the checkpoint %s, and so decide what is run as root", ErrPrivilege, dir)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// noteOf says what a restore must know, and returns the arguments for CRIU that follow from it.
func (r *running) noteOf(cfg CheckpointConfig, facts checkpointFacts) (n checkpointed, args []string, err error) {
	n = checkpointed{Version: checkpointVersion, TCP: cfg.TCPEstablished, Locks: cfg.FileLocks, Streams: []string{}, Binds: []string{}, Net: facts.JoinsNet,
		ExternalSockets: cfg.ExternalSockets, ShellJob: cfg.ShellJob, EmptyNetwork: cfg.EmptyNetwork, IgnoreCgroups: cfg.IgnoreCgroups}
	args = append(sharedArgs(&n), networkLock()...)
	if n.Net {
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+strconv.Itoa(r.child.Pid)+"/ns/net", &st); err != nil {
			return n, nil, fmt.Errorf("network namespace: %w", err)
		}
		args = append(args, "--external", fmt.Sprintf("net[%d]:%s", st.Ino, netKey))
	}
	at, err := r.mountedAt()
	if err != nil {
		return n, nil, err
	}
	for _, target := range facts.Binds {
		if !at.points[target] {
			return n, nil, withRemedy("give the path without links", "%w: the mount on %s is somewhere else in the container", ErrUnsupported, target)
		}
		n.Binds = append(n.Binds, target)
		args = append(args, "--external", "mnt["+target+"]:"+bindKey(target))
	}
	for fd := range 3 + facts.Extra {
		name, err := r.outside(fd, at.ids)
		if err != nil {
			return n, nil, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		n.Streams = append(n.Streams, name)
		if strings.HasPrefix(name, "file[") {
			args = append(args, "--external", name)
		}
	}
	return n, args, nil
}

// sharedArgs are those that the writing and the restoring have in common.
func sharedArgs(n *checkpointed) (args []string) {
	if n.TCP {
		args = append(args, "--tcp-established")
	}
	if n.Locks {
		args = append(args, "--file-locks")
	}
	if n.ExternalSockets {
		args = append(args, "--ext-unix-sk")
	}
	if n.ShellJob {
		args = append(args, "--shell-job")
	}
	if n.EmptyNetwork {
		args = append(args, "--empty-ns", "net")
	}
	if n.IgnoreCgroups {
		return append(args, "--manage-cgroups=ignore")
	}
	return append(args, "--manage-cgroups=soft")
}

// networkLock lets CRIU hold up packets by nftables where there is no iptables, which is what it uses otherwise. The images say which it was.
func networkLock() []string {
	for _, dir := range filepath.SplitList(rootfs.DefaultPath) {
		if _, err := os.Stat(filepath.Join(dir, "iptables-restore")); err == nil {
			return nil
		}
	}
	return []string{"--network-lock", "nftables"}
}

// bindKey is the name under which CRIU keeps a mount that comes from outside: it may not hold what separates.
func bindKey(target string) string {
	return "bind-" + strings.NewReplacer("_", "__", "/", "_s", ":", "_c", "[", "_o", "]", "_e").Replace(target)
}

// binds are the targets of the bind mounts that were asked for.
func (s *spec) binds() (targets []string) {
	for i := range s.mounts {
		if m := &s.mounts[i]; m.Type == rootfs.TypeBind {
			targets = append(targets, filepath.Clean(m.Target))
		}
	}
	return targets
}

// mountTable is what is mounted in the container.
type mountTable struct {
	points map[string]bool
	ids    map[int]bool
}

func (r *running) mountedAt() (t mountTable, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(r.child.Pid) + "/mountinfo")
	if err != nil {
		return t, err
	}
	t = mountTable{map[string]bool{}, map[int]bool{}}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return t, fmt.Errorf("mountinfo: unexpected line %q", line)
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			return t, fmt.Errorf("mountinfo: %w", err)
		}
		t.ids[id], t.points[linux.Unescape(f[4])] = true, true
	}
	return t, nil
}

// outside names a descriptor of the first process whose file is not the container's, as CRIU does; "" is one that is, or is closed.
func (r *running) outside(fd int, inside map[int]bool) (string, error) {
	proc := "/proc/" + strconv.Itoa(r.child.Pid)
	var st unix.Stat_t
	if err := unix.Stat(proc+"/fd/"+strconv.Itoa(fd), &st); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		return "", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "pipe:[" + strconv.FormatUint(st.Ino, 10) + "]", nil
	case unix.S_IFREG, unix.S_IFCHR:
	case unix.S_IFSOCK:
		return "", withRemedy("use a file or a pipe", "%w: a socket of the host program's cannot be taken along", ErrUnsupported)
	default:
		return "", nil
	}
	b, err := os.ReadFile(proc + "/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil || inside[id] {
				return "", err
			}
			return fmt.Sprintf("file[%x:%x]", id, st.Ino), nil
		}
	}
	return "", errors.New("fdinfo tells no mount")
}

func writeNote(dir string, n checkpointed) error {
	b, err := json.MarshalIndent(n, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, checkpointNote), append(b, '\n'), 0o600)
}

// readNote reads what writeNote has written.
func readNote(dir *os.File) (n checkpointed, err error) {
	f, err := openBeneath(dir, checkpointNote)
	if err != nil {
		return n, fmt.Errorf("not a checkpoint of a container: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return n, err
	}
	return parseNote(b)
}

func parseNote(b []byte) (n checkpointed, err error) {
	if err := json.Unmarshal(b, &n); err != nil {
		return n, fmt.Errorf("%s: %w", checkpointNote, err)
	}
	if n.Version != checkpointVersion {
		return n, fmt.Errorf("%w: a checkpoint of version %d, this program reads version %d", ErrUnsupported, n.Version, checkpointVersion)
	}
	return n, nil
}

func openBeneath(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "openat", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
