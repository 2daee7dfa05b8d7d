package caisson

import (
	"encoding/json"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/codec"
)

// formatHooks is what is recorded of the programs of a container that outlives its program: those that are run when that
// may be gone. Nil if there are none.
func formatHooks(h *hooksSpec) (json.RawMessage, error) {
	p := &h.programs
	if len(p.StartContainer)+len(p.Poststart)+len(p.Poststop) == 0 {
		return nil, nil
	}
	return codec.Marshal(specs.Hooks{StartContainer: p.StartContainer, Poststart: p.Poststart, Poststop: p.Poststop})
}

// parseHooks reads what formatHooks wrote. It refuses what the option would.
func parseHooks(b json.RawMessage, bundle string) (h hooksSpec, err error) {
	h.bundle = bundle
	if b == nil {
		return h, nil
	}
	if err := codec.Unmarshal(b, &h.programs); err != nil {
		return h, fmt.Errorf("%w: hooks: %w", ErrCorruptState, err)
	}
	for p := HookPrestart; p <= HookStopped; p++ {
		list := h.at(p)
		if len(list) > maxHooks {
			return h, fmt.Errorf("%w: hooks: %d programs", ErrCorruptState, len(list))
		}
		for i := range list {
			if err := checkHook(&list[i]); err != nil {
				return h, fmt.Errorf("%w: hooks: %w", ErrCorruptState, err)
			}
		}
	}
	return h, nil
}
