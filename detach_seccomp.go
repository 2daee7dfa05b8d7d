package caisson

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/state"
)

// Reading a seccomp profile and compiling it takes a command line that starts one process longer than all else that it does by itself. So who loads a
// container leaves the profile of the record as it stands there until somebody asks for it, and the filter that the container's own process got is
// recorded beside it.

// keptSeccomp is a profile of a record.
type keptSeccomp struct {
	text   json.RawMessage
	filter *state.Filter // what it was compiled to; nil: nobody knows
}

// profile returns the profile; nil: the default one, or none.
func (p *processSpec) profile() (*specs.LinuxSeccomp, error) {
	if p.kept == nil {
		return p.seccomp, nil
	}
	s := &specs.LinuxSeccomp{}
	if err := codec.Unmarshal(p.kept.text, s); err != nil {
		return nil, fmt.Errorf("%w: seccomp profile: %w", ErrCorruptState, err)
	}
	return s, nil
}

// program is the recorded filter; nil where there is none that is known to be that of the profile as it stands in the record.
func (k *keptSeccomp) program() *seccomp.Program {
	if k == nil || k.filter == nil || k.filter.Profile != profileSum(k.text) {
		return nil
	}
	code, err := base64.StdEncoding.DecodeString(k.filter.Code)
	if err != nil || len(code) == 0 || len(code)%8 != 0 || len(code) > 8*seccomp.MaxInsns {
		return nil
	}
	p := &seccomp.Program{Filter: make([]seccomp.Insn, len(code)/8), Flags: uintptr(k.filter.Flags)}
	for i := range p.Filter {
		c := code[8*i:]
		p.Filter[i] = seccomp.Insn{Code: binary.NativeEndian.Uint16(c), JT: c[2], JF: c[3], K: binary.NativeEndian.Uint32(c[4:])}
	}
	return p
}

// recordFilter is what is recorded of a filter for the profile in the record of a process; nil for one that is not to be used again: who asks about calls is
// found anew each time, and the default profile has its filters compiled in.
func recordFilter(process json.RawMessage, p *seccomp.Program) *state.Filter {
	if p == nil || p.Notify {
		return nil
	}
	var r struct {
		Seccomp json.RawMessage `json:"seccomp"`
	}
	if err := codec.Unmarshal(process, &r); err != nil || len(r.Seccomp) == 0 {
		return nil
	}
	return &state.Filter{Profile: profileSum(r.Seccomp), Flags: uint64(p.Flags), Code: base64.StdEncoding.EncodeToString(p.Bytes())}
}

// profileSum tells one text of a profile from another. It guards against mistakes, not attacks: text and filter are written together, into a file that nobody else
// can write.
func profileSum(text []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(text)
	return h.Sum64()
}
