package caisson

import (
	"os"
	"reflect"
	"slices"
	"sync"
	"unsafe"

	"github.com/caisson-go/caisson/internal/program"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/rootfs"
)

// Programs are remembered: most host programs start containers of few shapes, and compiling one takes as long as thirty
// system calls. What a program depends on is its key, every field of it; numbers of descriptors, and what a start makes
// for itself, are inputs of the program and not in it. A start with anything that the key cannot hold (an open file, a
// function, a place whose kind the machine can change meanwhile) is compiled anew. So is one without a keeper, which a command
// line makes that starts one process: finding out what a key is made of takes as long as the compiling.

// maxPrograms bounds how many are remembered. One takes some 100 KiB.
const maxPrograms = 16

// maxProgramKey bounds a key; files put into a container can be large.
const maxProgramKey = 32 << 10

// shape is what a program depends on.
type shape struct {
	spec   *spec
	m      *machine
	layout *rootfs.Layout
	env    rootfs.Env
}

// notInProgram are fields that have no part in a program, by type: it neither holds them nor differs with them.
var notInProgram = map[reflect.Type][]string{
	reflect.TypeFor[spec]():           {"rootfs", "logger", "late", "trace", "stopSignal", "cgroup", "id", "detach", "pod", "devPool"},
	reflect.TypeFor[processSpec]():    {"stdin", "stdout", "stderr", "ctx", "cancel", "seccomp", "kept", "resources", "timeout", "cpuTime", "waitDelay", "outputLimit"},
	reflect.TypeFor[machine]():        {"plan"},
	reflect.TypeFor[rootfs.DevTree](): {"file"},
}

// rememberedProgram is a program, with what its key names by address.
type rememberedProgram struct {
	key    string
	prog   *program.Program
	filter *seccomp.Program
}

var remembered struct {
	mu   sync.Mutex
	list []rememberedProgram // used last comes last
}

// programOf returns the program for a shape, and the files that belong to it.
func programOf(sh shape) (*program.Program, map[string]*os.File, error) {
	k := keyers.Get().(*keyer)
	defer keyers.Put(k)
	k.buf = k.buf[:0]
	k.cannot = sh.spec.process.engine.unkept || sh.m.secret != (seccomp.Secret{}) // which is made for this start, and to be forgotten
	if !k.cannot {
		k.value(shapeForm(), unsafe.Pointer(&sh))
	}
	can := !k.cannot
	if can {
		if p := recallProgram(k.buf); p != nil {
			return p, nil, nil
		}
	}
	lasting, files := true, map[string]*os.File(nil)
	switch {
	case sh.m.inside:
		sh.m.plan = rootfs.Inside(sh.env.Features)
	case sh.m.rest:
		sh.m.plan = rootfs.InsideWith(sh.env.Features, sh.spec.files)
		can = can && len(sh.spec.files) == 0
	case !sh.spec.alone:
		plan, err := sh.layout.Compile(sh.env)
		if err != nil {
			return nil, nil, err
		}
		sh.m.plan, lasting, files = plan, plan.Lasting(), plan.Files()
	}
	p, err := compile(sh.spec, sh.m)
	if err == nil && can && lasting {
		rememberProgram(rememberedProgram{string(k.buf), p, sh.m.filter})
	}
	return p, files, err
}

func recallProgram(key []byte) *program.Program {
	remembered.mu.Lock()
	defer remembered.mu.Unlock()
	for i, r := range slices.Backward(remembered.list) {
		if r.key == string(key) {
			copy(remembered.list[i:], remembered.list[i+1:])
			remembered.list[len(remembered.list)-1] = r
			return r.prog
		}
	}
	return nil
}

func rememberProgram(r rememberedProgram) {
	remembered.mu.Lock()
	defer remembered.mu.Unlock()
	if len(remembered.list) == maxPrograms {
		remembered.list = slices.Delete(remembered.list, 0, 1)
	}
	remembered.list = append(remembered.list, r)
}
