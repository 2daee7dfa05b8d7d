package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// Plan is a layout that has been compared with this machine and is ready to be turned into system calls. It
// serves one start.
//
// Its methods Sources, Assemble, Pivot and Populate, called in this order on one builder, emit the system
// calls; they are there for package caisson. Use [Enter] to have them performed.
type Plan struct {
	layout *Layout
	env    Env
	look   func(string) pathKind
	files  map[string]*os.File
	at     program.Arg // directory that is the root of targets
	inRoot bool        // at is also the root of the process and the current directory

	rootTree program.Arg
	// scratchTree is the tmpfs with the upper layer, where the overlay is made before it is attached.
	scratchTree program.Arg
	trees       []program.Arg          // of the root's layers or parts
	devices     []program.Arg          // of the host, in a user namespace
	diskTree    program.Arg            // of the upper layer on disk
	mounts      []mountState           // one for each of layout.Mounts
	own         map[string]program.Arg // /proc, /sys, /dev: the mount that we made there
	parent      program.Word
	zero        program.Word
	nulls       []program.Arg // one for each masked path, where /dev has none
	parts       []program.Arg // of a composed root that is to be read-only: what can be written
}

// mountState is what is known about a mount of the layout.
type mountState struct {
	isDir  bool        // kind of a bind's source
	locked uintptr     // MS_ flags of a bind's source, for kernels without mount_setattr
	tree   program.Arg // detached mount
	layers []program.Arg
	common string // of upper and work directory
	upper  program.Arg
	ready  bool // tree is set
}

// Compile checks the layout against this machine (sources of mounts, kinds of masked paths) and returns the
// plan for one start.
func (l *Layout) Compile(env Env) (*Plan, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	p := newPlan(l, env)
	p.inRoot = true
	return p, p.check()
}

func newPlan(l *Layout, env Env) *Plan {
	return &Plan{layout: l, env: env, look: lookHere, files: map[string]*os.File{}, at: program.Cwd(),
		mounts: make([]mountState, len(l.Mounts)), own: map[string]program.Arg{}}
}

// Files returns the files that the program needs, by the names of its inputs.
func (p *Plan) Files() map[string]*os.File { return p.files }

// Lasting says that the plan would be the same at any other time: it holds no open file, and nothing of what it was
// compared with is a place of the host's that can be replaced.
func (p *Plan) Lasting() bool {
	files := len(p.files)
	if p.layout.Dev != nil {
		files-- // which is another one at each start
	}
	if files > 0 || !p.env.Features.MountSetattr || p.env.ScratchDir != "" {
		return false
	}
	for i := range p.layout.Mounts {
		if t := p.layout.Mounts[i].Type; t == TypeBind || t == TypeOverlay {
			return false
		}
	}
	return true
}

// Inputs returns the descriptor numbers of the inputs of prog, in its order, for the inputs that are the
// plan's.
func (p *Plan) fds(prog *program.Program) ([]int, error) {
	var out []int
	for _, name := range prog.Inputs() {
		f := p.files[name]
		if f == nil {
			return nil, &Error{Op: "find input", Object: name, Err: fs.ErrInvalid}
		}
		out = append(out, int(f.Fd()))
	}
	return out, nil
}

// check looks at the machine.
func (p *Plan) check() error {
	var faults []error
	for i := range p.layout.Mounts {
		if err := p.checkMount(&p.layout.Mounts[i], &p.mounts[i]); err != nil {
			faults = append(faults, err)
		}
	}
	if r := p.layout.Root; r != nil && r.Kind == KindBind && !p.env.Features.MountSetattr && r.Layers[0].Recursive && hasMountsBelow(layerPath(r.Layers[0])) {
		faults = append(faults, &Error{Op: "bind root filesystem", Object: layerPath(r.Layers[0]), Err: unix.ENOSYS, Remedy: "mounts below it need mount_setattr, which is not available here"})
	}
	if t := p.layout.Dev; t != nil {
		p.files[t.file.Name()] = t.file
		if p.env.UserNamespace {
			faults = append(faults, &Error{Op: "use device tree on", Object: "/dev", Err: errors.ErrUnsupported, Remedy: "its nodes are of no use in a user namespace, where those of the host are shown"})
		}
	}
	if !p.env.Features.MountSetattr {
		for _, m := range p.layout.Mounts {
			if m.Type == TypeSysfs && p.hostSysfs() {
				faults = append(faults, &Error{Op: "show the host's", Object: "/sys", Err: unix.ENOSYS, Remedy: "read-only with all below it needs mount_setattr, which is not available here; leave out /sys"})
			}
		}
		if p.env.IDMap != nil {
			faults = append(faults, &Error{Op: "map ids of the root filesystem", Err: unix.ENOSYS, Remedy: "it needs mount_setattr, which is not available here"})
		}
	}
	return errors.Join(faults...)
}

func (p *Plan) checkMount(m *Mount, s *mountState) error {
	if m.Type == TypeCgroup && p.env.Cgroup.Version == 1 && m.Target != "/sys/fs/cgroup" {
		return invalid("mount cgroup on", m.Target, "with cgroup version 1 it belongs on /sys/fs/cgroup")
	}
	if m.Type == TypeRemount && !p.env.Features.MountSetattr {
		return &Error{Op: "remount", Object: m.Target, Err: unix.ENOSYS, Remedy: "it needs mount_setattr (Linux 5.12), which is not available here"}
	}
	if m.Type != TypeBind {
		return nil
	}
	var st unix.Stat_t
	var err error
	name := m.Source
	if m.File != nil {
		name = m.File.Name()
		err = unix.Fstat(int(m.File.Fd()), &st)
	} else {
		err = unix.Stat(m.Source, &st)
	}
	if err != nil {
		return &Error{Op: "mount on " + m.Target + ": open source", Object: name, Err: err}
	}
	s.isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	if m.Propagation == Shared && p.env.UserNamespace {
		return &Error{Op: "mount on", Object: m.Target, Err: fs.ErrInvalid, Remedy: "propagation can be shared only without a user namespace; use slave"}
	}
	if m.IDMap != Unmapped && m.IDMapFile == nil && p.env.IDMap == nil {
		return &Error{Op: "mount on", Object: m.Target, Err: fs.ErrInvalid, Remedy: "an id-mapped mount needs a user namespace, made by a privileged caller"}
	}
	if p.env.Features.MountSetattr {
		return nil
	}
	if m.IDMap != Unmapped || m.Recursive && m.SetAll|m.ClearAll != 0 && hasMountsBelow(name) {
		return &Error{Op: "mount on", Object: m.Target, Err: unix.ENOSYS, Remedy: "options for all mounts below, and id mappings, need mount_setattr (Linux 5.12), which is not available here"}
	}
	var sf unix.Statfs_t
	if m.File != nil {
		err = unix.Fstatfs(int(m.File.Fd()), &sf)
	} else {
		err = unix.Statfs(m.Source, &sf)
	}
	if err == nil {
		s.locked = statfsFlags(int64(sf.Flags))
	}
	return nil
}

// input declares f as an input of the program.
func (p *Plan) input(b *program.Builder, name string, f *os.File) program.Arg {
	p.files[name] = f
	return b.Input(name)
}

// rel makes an absolute target relative to the root of the container.
func rel(target string) string { return strings.TrimPrefix(path.Clean(target), "/") }

func num(i int) string { return strconv.Itoa(i) }
