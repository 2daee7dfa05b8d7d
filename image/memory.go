package image

import (
	"context"
	"errors"

	"golang.org/x/sync/semaphore"
)

// What a layer has to remember until it is complete, modes of directories, owners, directories without an entry, comes out of Limits.Memory
// too. Layers that are unpacked at once share that: each may take a little for nothing, more as long as there is some, and where there is none it is put aside
// and unpacked again when it can have all. So nothing fails that would not fail alone.

// errMemoryBusy says that other layers have the memory.
var errMemoryBusy = errors.New("other layers have the memory")

// notes are what one layer remembers.
type notes struct {
	shared *semaphore.Weighted // nil: up to max are the layer's own
	max    int64
	limit  int64 // Limits.Memory
	used   int64
	held   int64
}

const (
	// notesFree is within what decoderNeed allows a layer.
	notesFree = 1 << 20
	notesStep = 1 << 20
	// notesGarbage is how much memory a byte of notes takes: the collector lets as much again lie.
	notesGarbage = 2
)

// grow takes n bytes more: errMemoryBusy, or a LimitError where the layer is alone. Nil notes have no bound.
func (n *notes) grow(size int) error {
	if n == nil {
		return nil
	}
	want := n.used + notesGarbage*int64(size)
	for n.shared != nil && want > n.held+notesFree {
		if !n.shared.TryAcquire(notesStep) {
			return errMemoryBusy
		}
		n.held += notesStep
	}
	if n.shared == nil && want > n.max {
		return &LimitError{Limit: "Memory", Max: n.limit, Need: want + n.limit - n.max}
	}
	n.used = want
	return nil
}

// shrink gives n bytes back, to this layer.
func (n *notes) shrink(size int) {
	if n != nil {
		n.used -= notesGarbage * int64(size)
	}
}

// close gives all back.
func (n *notes) close() {
	if n.shared != nil {
		n.shared.Release(n.held)
	}
	n.held = 0
}

// grant takes what decoding a layer needs, or everything, and returns the layer's notes. release gives both back.
func (j *layerJob) grant(ctx context.Context, need int64, alone bool) (n *notes, release func(), err error) {
	most := j.s.limits.Memory
	if need > most {
		return nil, nil, &LimitError{Limit: "Memory", Max: most, Need: need}
	}
	n = &notes{shared: j.memory}
	if alone {
		n, need = &notes{max: most - need + notesFree, limit: most}, most
	}
	if err := j.memory.Acquire(ctx, need); err != nil {
		return nil, nil, err
	}
	return n, func() { n.close(); j.memory.Release(need) }, nil
}

// attempt fills work, within what other layers leave. It reports errMemoryBusy where that is not enough.
func (j *layerJob) attempt(ctx context.Context, work string, alone bool) (*mark, error) {
	whole := j.budget
	j.budget = &budget{limits: whole.limits, parent: whole}
	m, err := j.fill(ctx, work, alone)
	if errors.Is(err, errMemoryBusy) {
		j.budget.refund()
	}
	j.budget = whole
	return m, err
}

// refund takes what was counted off the parent again.
func (b *budget) refund() {
	b.parent.bytes.Add(-b.bytes.Load())
	b.parent.entries.Add(-b.entries.Load())
}

// jsonBytes is not less than what a string takes in a JSON document.
func jsonBytes(s string) int {
	n := len(s) + 3
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '<' || c == '>' || c == '&' || c == '"' || c == '\\' {
			n += 5
		}
	}
	return n
}

// maxImpliedOf bounds the names of directories without an entry that all layers of an image have together.
func (l Limits) maxImpliedOf() int64 { return l.Memory / 8 }

// addImplied counts the directories without an entry of a layer.
func (b *budget) addImplied(m *mark) error {
	n := int64(0)
	for _, path := range m.Implied {
		n += int64(len(path)) + 64
	}
	if n = b.implied.Add(n); n > b.limits.maxImpliedOf() {
		return &LimitError{Limit: "Memory", Max: b.limits.Memory, Need: 8 * n}
	}
	return nil
}
