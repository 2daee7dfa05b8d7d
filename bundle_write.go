package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/rootfs"
)

// Spec returns the container as an OCI runtime configuration of version 1.3, which runc, crun and what is built on them
// (containerd, podman, Kubernetes) run in the same way. It is that of this machine and user: ids are numbers, the
// maps of the user namespace and the default capabilities and seccomp profile are written out, and what caisson
// decides by itself is decided.
//
// What a configuration has no place for is refused, all of it at once, by an error that matches [ErrUnsupported] and names the
// option: root filesystems other than a directory that is used as it is ([rootfs.DirSource.ReadOnly] and
// [rootfs.DirSource.Writable]), files that are given open, networks, limits of time and output. Standard streams are
// left to whoever runs the bundle. Files of [WithFile] need [Container.WriteBundle].
func (c *Container) Spec(ctx context.Context) (*specs.Spec, error) {
	w := &specWriter{spec: c.spec}
	s, err := w.write(ctx)
	return s, c.fail("describe as OCI configuration", err)
}

// WriteBundle writes [Container.Spec] to dir/config.json, and the files of [WithFile] below dir/files, from where they are
// bound into the container. dir is made if it is missing (mode 0700); a config.json in it is replaced, at once or not
// at all, and after a failure a directory that was made for it is gone. The root filesystem stays where it is.
func (c *Container) WriteBundle(ctx context.Context, dir string) error {
	return c.fail("write bundle", c.writeBundle(ctx, dir))
}

func (c *Container) writeBundle(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	w := &specWriter{spec: c.spec, dir: dir}
	s, err := w.write(ctx)
	if err != nil {
		return err
	}
	_, err = os.Lstat(dir)
	made := errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := w.writeFiles(s); err != nil {
		if made {
			w.remove()
		}
		return err
	}
	return nil
}

// remove takes away a directory that was made for a bundle that could not be written. What others put there stays.
func (w *specWriter) remove() {
	for _, f := range w.files {
		_ = os.Remove(f.to)
		_ = os.Remove(filepath.Dir(f.to))
	}
	_ = os.Remove(w.dir)
}

// writeFiles writes the files that the container sees, then the configuration.
func (w *specWriter) writeFiles(s *specs.Spec) error {
	for _, f := range w.files {
		if err := os.MkdirAll(filepath.Dir(f.to), 0o700); err != nil {
			return err
		}
		if err := replaceFile(f.to, f.data, f.mode); err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(f.to, f.uid, f.gid); err != nil {
				return err
			}
		}
	}
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(w.dir, "config.json"), append(b, '\n'), 0o600)
}

// replaceFile writes a file under another name first.
func replaceFile(name string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// specWriter turns a container into a configuration.
type specWriter struct {
	spec   *spec
	dir    string // where the bundle is written, or ""
	files  []bundleFile
	faults []error
}

// bundleFile is a file of the bundle that the container sees.
type bundleFile struct {
	to       string
	data     []byte
	mode     os.FileMode
	uid, gid int
}

// refuse notes a wish that the configuration has no place for.
func (w *specWriter) refuse(set bool, option, format string, args ...any) {
	if set {
		w.faults = append(w.faults, &OptionError{option, fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)})
	}
}

const noPlace = "an OCI configuration has no place for it"

// refuseWishes names the wishes of the host program's own doing.
func (w *specWriter) refuseWishes() {
	s, p := w.spec, &w.spec.process
	for _, f := range []struct {
		set    bool
		option string
	}{
		{p.commandFile != nil, "WithCommandFile"},
		{len(p.extraFiles) > 0, "WithExtraFiles"},
		{p.timeout > 0, "WithTimeout"},
		{p.cpuTime > 0, "WithCPUTime"},
		{p.outputLimit > 0, "WithOutputLimit"},
		{p.attrs.cpus != nil, "WithCPUAffinity"},
		{p.attrs.coreSched, "WithCoreScheduling"},
		{p.attrs.hostKeyring, "WithHostKeyring"},
		{p.landlock != nil, "WithLandlock"},
		{p.notify.handler != nil, "WithSeccompNotify"},
		{p.notify.recorder != nil, "WithSeccompRecorder"},
		{s.cgroup.Delegate, "WithCgroup with Delegate"},
		{s.detach.on, "WithDetached"},
		{p.engine.unkept, "WithoutKeeper"},
		{p.engine.console != "", "WithConsoleSocket"},
		{s.network != nil, "WithNetwork"},
		{s.cgroupOff, "WithoutCgroup"},
		{s.bestEffort, "WithBestEffort"},
		{len(s.trees) > 0, "WithFS"},
		{s.stopSignal != 15, "WithStopSignal"},
		{len(s.hooks.funcs) > 0, "WithHook"},
		{s.restart.Mode != RestartNo, "WithRestart"},
		{s.log != nil, "WithLog"},
		{s.health != nil, "WithHealthCheck"},
		{s.attachable, "WithAttachable"},
	} {
		w.refuse(f.set, f.option, noPlace)
	}
	if per := p.attrs.personality; per != nil {
		w.refuse(per.NoRandomize || per.UnameRelease26, "WithPersonality", "an OCI configuration has only the domains LINUX and LINUX32")
	}
}

// root writes the root filesystem, which has to be a directory by itself.
func (w *specWriter) root(d *rootfs.Description, mapped, readOnly bool) *specs.Root {
	if d.Kind != rootfs.KindBind || len(d.Layers) != 1 || d.Layers[0].Path == "" {
		w.refuse(true, "WithRootfs", "an OCI bundle has a directory for its root filesystem: use rootfs.Dir(path).ReadOnly() or rootfs.Dir(path).Writable()")
		return nil
	}
	w.refuse(mapped && !d.Unmapped, "WithRootfs", "an OCI bundle cannot ask for an id-mapped root filesystem: use rootfs.Dir(path).Unmapped(), of which the container's ids own the files")
	return &specs.Root{Path: d.Layers[0].Path, Readonly: readOnly || !d.Writable}
}

func (w *specWriter) mounts(list []rootfs.Mount) (out []specs.Mount) {
	for i := range list {
		m := &list[i]
		fstype, source, options, err := m.Format()
		if err != nil {
			w.faults = append(w.faults, &OptionError{"WithMount", fmt.Errorf("%w: %w", ErrUnsupported, err)})
			continue
		}
		out = append(out, specs.Mount{Destination: m.Target, Type: fstype, Source: source, Options: options})
	}
	return out
}

// fileMounts puts files into the bundle.
func (w *specWriter) fileMounts(files []rootfs.File) (out []specs.Mount) {
	for i, f := range files {
		w.refuse(f.Dir || f.Link != "" || f.Content != nil, "WithFiles", "%s: only regular files whose content is given can go into a bundle", f.Path)
		w.refuse(w.dir == "", "WithFile", "%s: its content belongs into the bundle: use WriteBundle", f.Path)
		to := filepath.Join(w.dir, "files", strconv.Itoa(i))
		w.files = append(w.files, bundleFile{to, f.Data, f.Mode, int(f.UID), int(f.GID)})
		out = append(out, specs.Mount{Destination: f.Path, Type: "bind", Source: to, Options: []string{"bind", "nosuid", "nodev"}})
	}
	return out
}

func (w *specWriter) scheduler(s *Scheduler) *specs.Scheduler {
	if s == nil {
		return nil
	}
	out := &specs.Scheduler{Policy: specs.LinuxSchedulerPolicy(s.Policy.String()), Nice: int32(s.Nice), Priority: int32(s.Priority),
		Runtime: uint64(s.Runtime), Deadline: uint64(s.Deadline), Period: uint64(s.Period)}
	for _, f := range []struct {
		on   bool
		flag specs.LinuxSchedulerFlag
	}{{s.ResetOnFork, specs.SchedFlagResetOnFork}, {s.Reclaim, specs.SchedFlagReclaim}, {s.Overrun, specs.SchedFlagDLOverrun}} {
		if f.on {
			out.Flags = append(out.Flags, f.flag)
		}
	}
	return out
}

func (w *specWriter) memoryPolicy(m *MemoryPolicy) *specs.LinuxMemoryPolicy {
	if m == nil {
		return nil
	}
	out := &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(m.Mode.String()), Nodes: m.Nodes}
	for _, f := range []struct {
		on   bool
		flag specs.MemoryPolicyFlagType
	}{{m.StaticNodes, specs.MpolFStaticNodes}, {m.RelativeNodes, specs.MpolFRelativeNodes}, {m.Balancing, specs.MpolFNumaBalancing}} {
		if f.on {
			out.Flags = append(out.Flags, f.flag)
		}
	}
	return out
}

func (w *specWriter) personality(p *Personality) *specs.LinuxPersonality {
	if p == nil {
		return nil
	}
	if p.Linux32 {
		return &specs.LinuxPersonality{Domain: specs.PerLinux32}
	}
	return &specs.LinuxPersonality{Domain: specs.PerLinux}
}

func propagationName(p rootfs.Propagation) string {
	return [...]string{"rprivate", "rslave", "rshared", "runbindable"}[p]
}

func names(list []string) []string {
	slices.Sort(list)
	return list
}
