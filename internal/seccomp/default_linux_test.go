package seccomp

import (
	"reflect"
	"runtime"
	"sync"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/caps"
)

// The generated profile is the module's, rule for rule, for each capability
// alone and for the usual sets. Runs for the processor it is built for: the
// module knows no other.
func TestDefaultIsTheModules(t *testing.T) {
	native, err := Native()
	if err != nil {
		t.Skip(err)
	}
	sets := []caps.Set{0, caps.Default, caps.Known}
	for _, c := range caps.Known.Caps() {
		sets = append(sets, caps.Of(c), caps.Default.Add(c))
	}
	for _, set := range sets {
		want, err := moby.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
			Capabilities: &specs.LinuxCapabilities{Bounding: set.Names()},
		}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Default(native, set)
		if err != nil {
			t.Fatal(err)
		}
		last := len(got.Syscalls) - 1
		later := got.Syscalls[last]
		if got.Syscalls = got.Syscalls[:last]; later.Action != specs.ActErrno || *later.ErrnoRet != 38 {
			t.Errorf("the last rule should answer ENOSYS to newer calls: %+v", later)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s with %v:\n%+v\nwant\n%+v", runtime.GOARCH, set, got, want)
		}
	}
}

func TestDefaultPerNative(t *testing.T) {
	for native, want := range map[Arch][]specs.Arch{
		AMD64:   {specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		ARM64:   {specs.ArchAARCH64, specs.ArchARM},
		RISCV64: {specs.ArchRISCV64},
	} {
		p, err := Default(native, caps.Default)
		if err != nil || !reflect.DeepEqual(p.Architectures, want) {
			t.Errorf("%v: %v, %v", native, p, err)
		}
		prog, err := Compile(p, native)
		if err != nil || len(prog.Unknown) > 0 || len(prog.Foreign) > 0 || prog.Notify {
			t.Errorf("%v: %+v, %v", native, prog, err)
		}
	}
}

func TestDefaultAnswers(t *testing.T) {
	plain, admin := caps.Default, caps.Default.Add(caps.SysAdmin)
	for _, test := range []struct {
		name string
		args [6]uint64
		set  caps.Set
		want uint32
	}{
		{"read", [6]uint64{}, plain, RetAllow},
		{"execve", [6]uint64{}, plain, RetAllow},
		{"mount", [6]uint64{}, plain, RetErrno | 1},
		{"mount", [6]uint64{}, admin, RetAllow},
		{"clone3", [6]uint64{}, plain, RetErrno | 38},
		{"clone3", [6]uint64{}, admin, RetAllow},
		{"clone", [6]uint64{0x11}, plain, RetAllow},
		{"clone", [6]uint64{0x10000011}, plain, RetErrno | 1}, // CLONE_NEWUSER
		{"clone", [6]uint64{0x10000011}, admin, RetAllow},
		{"socket", [6]uint64{2}, plain, RetAllow},
		{"socket", [6]uint64{38}, plain, RetErrno | 1}, // AF_ALG
		{"socket", [6]uint64{39}, plain, RetAllow},
		{"socket", [6]uint64{40}, plain, RetErrno | 1}, // AF_VSOCK
		{"personality", [6]uint64{0x20000}, plain, RetAllow},
		{"personality", [6]uint64{0x40000}, plain, RetErrno | 1}, // ADDR_NO_RANDOMIZE
		{"file_getattr", [6]uint64{}, plain, RetErrno | 38},
		{"keyctl", [6]uint64{}, admin, RetErrno | 1},
	} {
		for _, native := range nativeArches {
			prog, err := DefaultProgram(native, test.set)
			if err != nil {
				t.Fatal(err)
			}
			nr, ok := native.Number(test.name)
			if !ok {
				t.Fatalf("%v has no %s", native, test.name)
			}
			if got := prog.Answer(Call{Nr: nr, Arch: native.Token(), Args: test.args}); got != test.want {
				t.Errorf("%v: %s%x with %v: %#x, want %#x", native, test.name, test.args, test.set, got, test.want)
			}
		}
	}
}

// What was compiled when the package was generated is what Compile makes now.
func TestReadyIsWhatCompileMakes(t *testing.T) {
	if len(ready) != len(nativeArches) {
		t.Errorf("%d filters ready; run go generate", len(ready))
	}
	for _, r := range ready {
		spec, err := Default(r.native, caps.Default)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Compile(spec, r.native)
		if err != nil {
			t.Fatal(err)
		}
		if got := readyProgram(r.native, r.filter); !reflect.DeepEqual(got, want) {
			t.Errorf("%v: the filter in zfilter.go is old; run go generate", r.native)
		}
	}
}

func TestDefaultProgramIsShared(t *testing.T) {
	a, err := DefaultProgram(AMD64, caps.Default)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := DefaultProgram(AMD64, caps.Default.Add(caps.NetAdmin)) // makes no difference to the profile
	c, _ := DefaultProgram(AMD64, caps.Default.Add(caps.SysAdmin))
	if a != b || a == c {
		t.Error(a == b, a == c)
	}
	spec, _ := Default(AMD64, caps.Default)
	spec.Syscalls[0].Names[0] = "changed"
	*spec.DefaultErrnoRet = 7
	if again, _ := Default(AMD64, caps.Default); again.Syscalls[0].Names[0] == "changed" || *again.DefaultErrnoRet == 7 {
		t.Error("callers share the profile's memory")
	}
}

// Starts come from many goroutines at once.
func TestDefaultProgramConcurrently(t *testing.T) {
	set := caps.Default.Add(caps.SysPtrace, caps.Syslog)
	found := make([]*Program, 8)
	var all sync.WaitGroup
	for i := range found {
		all.Go(func() { found[i], _ = DefaultProgram(ARM64, set) })
	}
	all.Wait()
	for _, p := range found {
		if p == nil || p != found[0] {
			t.Errorf("%p, %p", p, found[0])
		}
	}
}
