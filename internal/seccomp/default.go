package seccomp

import (
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/caps"
)

// on says which native ABIs a rule of the default profile is for.
type on uint8

const (
	onAMD64 on = 1 << iota
	onARM64
	onRISCV64
)

// A profileRule is a rule of the default profile and when it is in force.
type profileRule struct {
	names   []string
	action  specs.LinuxSeccompAction
	errno   uint // for SCMP_ACT_ERRNO; 0: the default
	args    []specs.LinuxSeccompArg
	on      on
	with    caps.Set // in force only if the container has all of these
	without caps.Set // in force only if it has none of these
}

// family is what a default profile of each native ABI covers.
var family = [...]struct {
	native Arch
	on     on
	arches []specs.Arch
}{
	{AMD64, onAMD64, []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}},
	{ARM64, onARM64, []specs.Arch{specs.ArchAARCH64, specs.ArchARM}},
	{RISCV64, onRISCV64, []specs.Arch{specs.ArchRISCV64}},
}

// Default returns the profile containers get unless told otherwise: the one
// Docker ships (github.com/moby/profiles/seccomp), which refuses with EPERM
// what it does not name, and lets a container with more capabilities make the
// calls they are for. set is the container's bounding set. Calls that came
// after the profile was written answer ENOSYS, like those that come after
// the tables, so that programs fall back to what they used before.
//
// The caller owns the result. An ABI that is not native to any kernel with
// tables here is an error that Is errors.ErrUnsupported.
func Default(native Arch, set caps.Set) (*specs.LinuxSeccomp, error) {
	for _, f := range family {
		if f.native == native {
			return instantiate(f.on, f.arches, set), nil
		}
	}
	return nil, fmt.Errorf("default seccomp profile for %v: %w", native, errors.ErrUnsupported)
}

func instantiate(on on, arches []specs.Arch, set caps.Set) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: new(uint),
		Architectures:   append([]specs.Arch(nil), arches...),
	}
	*p.DefaultErrnoRet = eperm
	for _, r := range profile {
		if r.on&on != 0 && set.Contains(r.with) && set&r.without == 0 {
			p.Syscalls = append(p.Syscalls, r.syscall())
		}
	}
	if later := laterThan(profileNewest); len(later) > 0 {
		errno := uint(enosys)
		p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: later, Action: specs.ActErrno, ErrnoRet: &errno})
	}
	return p
}

func (r *profileRule) syscall() specs.LinuxSyscall {
	s := specs.LinuxSyscall{
		Names:  append([]string(nil), r.names...),
		Action: r.action,
		Args:   append([]specs.LinuxSeccompArg(nil), r.args...),
	}
	if r.errno != 0 {
		errno := r.errno
		s.ErrnoRet = &errno
	}
	return s
}

// laterThan returns the names of the calls numbered above n. Such numbers are
// the same in every ABI.
func laterThan(n int32) []string {
	var out []string
	for i, number := range numbers[ARM64-1] {
		if number > n {
			out = append(out, nameAt(i))
		}
	}
	return out
}

// cache holds the compiled default profiles, by defaultKey.
var cache sync.Map

type defaultKey struct {
	native Arch
	set    caps.Set
}

// DefaultProgram returns [Default] compiled. For the default capabilities
// that was done when this package was generated; for others it is done once
// for each kind of container. The result is shared: do not change it.
func DefaultProgram(native Arch, set caps.Set) (*Program, error) {
	// Sets that differ in what makes no difference share a filter.
	key := defaultKey{native, set & profileCaps}
	if p, ok := cache.Load(key); ok {
		return p.(*Program), nil
	}
	p, err := makeDefault(key)
	if err != nil {
		return nil, err
	}
	kept, _ := cache.LoadOrStore(key, p)
	return kept.(*Program), nil
}

func makeDefault(key defaultKey) (*Program, error) {
	if key.set == caps.Default&profileCaps {
		for _, r := range ready {
			if r.native == key.native {
				return readyProgram(r.native, r.filter), nil
			}
		}
	}
	spec, err := Default(key.native, key.set)
	if err != nil {
		return nil, err
	}
	return Compile(spec, key.native)
}

// readyProgram is what [Compile] would return with the filter.
func readyProgram(native Arch, filter []Insn) *Program {
	p := &Program{Filter: filter}
	if native == AMD64 {
		p.Partial = []string{"socket"}
	}
	return p
}
