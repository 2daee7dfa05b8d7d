package image

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
)

// What a layer has to remember until it is complete, modes of directories, owners, directories without an entry, comes out of Limits.Memory
// too, and so do the windows of later zstd frames that are larger than the first one. Layers that are unpacked at once share that: each may take a little for nothing, more as long as there is some, and where there is none it is put aside
// and unpacked again when it can have all. So nothing fails that would not fail alone.

// errMemoryBusy says that other layers have the memory.
var errMemoryBusy = errors.New("other layers have the memory")

// memory is what layers share, in bytes. Who waits gets it in turn; who has some may take more of what is there all the same: it would have to give up what it has done otherwise, and those that
// wait for much get it when it is through.
type memory struct {
	mu    sync.Mutex
	left  int64
	queue []*turn
}

type turn struct {
	need int64
	come chan struct{}
}

func newMemory(size int64) *memory { return &memory{left: size} }

// acquire waits until there are n bytes, or for the end of ctx.
func (m *memory) acquire(ctx context.Context, n int64) error {
	m.mu.Lock()
	if len(m.queue) == 0 && n <= m.left {
		m.left -= n
		m.mu.Unlock()
		return nil
	}
	t := &turn{n, make(chan struct{})}
	m.queue = append(m.queue, t)
	m.mu.Unlock()
	select {
	case <-t.come:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.Index(m.queue, t); i >= 0 {
		m.queue = slices.Delete(m.queue, i, i+1)
	} else { // it came in this moment
		m.left += n
	}
	m.next()
	return context.Cause(ctx)
}

// tryAcquire takes n bytes if there are as many.
func (m *memory) tryAcquire(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.left {
		return false
	}
	m.left -= n
	return true
}

func (m *memory) release(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left += n
	m.next()
}

// next serves those that wait, as far as there is enough. The caller holds mu.
func (m *memory) next() {
	for len(m.queue) > 0 && m.queue[0].need <= m.left {
		m.left -= m.queue[0].need
		close(m.queue[0].come)
		m.queue = m.queue[1:]
	}
}

// notes are what one layer remembers, and what its decoder takes for windows, which is another goroutine.
type notes struct {
	shared  *memory // nil: up to max are the layer's own
	max     int64
	limit   int64 // Limits.Memory
	entries int64 // so far, of who reads the archive
	windows int64 // what the decoder was granted at the beginning

	mu   sync.Mutex
	used int64
	held int64 // of what is shared, for notes
	more int64 // for windows, beyond what was granted
}

const (
	// notesFree is within what every layer needs.
	notesFree = 1 << 20
	notesStep = 1 << 20
	// notesGarbage is how much memory a byte of notes takes: the collector lets as much again lie.
	notesGarbage = 2
	// notesEntries is after how many entries garbage is collected beside a large window: they leave some 1 KB each.
	notesEntries = 8192
)

// grow takes n bytes more: errMemoryBusy, or a LimitError where the layer is alone. Nil notes have no bound.
func (n *notes) grow(size int) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	want := n.used + notesGarbage*int64(size)
	for n.shared != nil && want > n.held+notesFree {
		if !n.shared.tryAcquire(notesStep) {
			return errMemoryBusy
		}
		n.held += notesStep
	}
	if n.shared == nil && want+n.more > n.max {
		return &LimitError{Limit: "Memory", Max: n.limit, Need: want + n.more + n.limit - n.max}
	}
	n.used = want
	return nil
}

// hold takes what windows lacks to total, which what needs: errMemoryBusy, or a LimitError where the layer is alone.
func (n *notes) hold(total int64, what string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	more := total - n.windows
	switch {
	case more <= n.more:
		return nil
	case n.shared == nil && n.used+more > n.max:
		return &LimitError{Limit: "Memory", Max: n.limit, Need: n.used + more + n.limit - n.max, What: what}
	case n.shared != nil && !n.shared.tryAcquire(more-n.more):
		return errMemoryBusy
	}
	n.more = more
	return nil
}

// shrink gives n bytes back, to this layer.
func (n *notes) shrink(size int) {
	if n != nil {
		n.mu.Lock()
		n.used -= notesGarbage * int64(size)
		n.mu.Unlock()
	}
}

// entry is told of each entry of the layer. Beside a large window, which allows the collector to let as much lie as the window takes, what entries leave behind
// is collected before it comes to much.
func (n *notes) entry() {
	if n == nil {
		return
	}
	if n.entries++; n.entries%notesEntries == 0 && n.large() {
		runtime.GC()
	}
}

// large says that the decoder has more than what is usual.
func (n *notes) large() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.windows+n.more > 2*usualWindow
}

// close gives all back, when neither goroutine is there any more.
func (n *notes) close() {
	if n.large() {
		debug.FreeOSMemory() // or the windows of the next layer come on top of these, if only since something small stands in their place
	}
	if n.shared != nil {
		n.shared.release(n.held + n.more)
	}
	n.held, n.more = 0, 0
}

// alone are the notes of a layer that has all memory to itself, of which decoding takes its part.
func (l Limits) alone(d decoding) (*notes, error) {
	if d.need > l.Memory {
		return nil, &LimitError{Limit: "Memory", Max: l.Memory, Need: d.need, What: d.what}
	}
	return &notes{max: l.Memory - d.need + notesFree, limit: l.Memory, windows: d.windows}, nil
}

// grant takes what decoding a layer needs, or everything, and returns the layer's notes. release gives both back.
func (j *layerJob) grant(ctx context.Context, d decoding, alone bool) (n *notes, release func(), err error) {
	n, err = j.s.limits.alone(d)
	if err != nil {
		return nil, nil, err
	}
	need := n.limit
	if !alone {
		n.shared, need = j.memory, d.need
	}
	if err := j.memory.acquire(ctx, need); err != nil {
		return nil, nil, err
	}
	return n, func() { n.close(); j.memory.release(need) }, nil
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
