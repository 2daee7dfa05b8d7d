package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/caisson-go/caisson/internal/testutil"
)

// rememberedDepth is how many directories are between the root and those of a rememberedLayer.
const rememberedDepth = 8

// rememberedLayer has n directories without an entry, with names of 2 KB, and files of other owners, which have to be remembered.
func rememberedLayer(t testing.TB, name string, n int) []byte {
	for range rememberedDepth - 1 {
		name += "/" + strings.Repeat("n", 250)
	}
	var ents []ent
	for i := range n {
		ents = append(ents, file(fmt.Sprintf("%s/%0250d/f", name, i), "").with(ownedBy(7, 8, 0o640)))
	}
	return layer(t, ents...)
}

// A layer that needs memory which others have is put aside, gives back what it has, and is unpacked when it can have all. What it was
// counted for is not counted twice.
func TestMemoryIsShared(t *testing.T) {
	ctx := context.Background()
	const n, memory = 200, minMemory
	s := openStore(t, Options{Limits: Limits{Memory: memory}, Policy: Policy{Owners: OwnersMapped}})
	putImage(t, s, "a", plain(rememberedLayer(t, "d", n)))
	info := must[*Info](t)(s.Inspect(ctx, "a", nil))
	sem := newMemory(memory)
	if err := sem.acquire(ctx, memory/2); err != nil { // as another layer does
		t.Fatal(err)
	}
	gifts := s.newGiver(ctx, false)
	defer gifts.close()
	job := &layerJob{s: s, desc: info.Layers[0], diffID: digest.Digest(info.Config.DiffIDs[0]), budget: &budget{limits: s.limits}, memory: sem, giver: gifts}
	done := make(chan error, 1)
	go func() {
		m, err := job.run(ctx, "layer")
		if err == nil && (m.Entries != n || len(m.Implied) != n+rememberedDepth) {
			err = fmt.Errorf("%d entries, %d implied", m.Entries, len(m.Implied))
		}
		done <- err
	}()
	testutil.Eventually(time.Minute, func() bool { return len(done) > 0 || sem.waiters() > 0 })
	if len(done) > 0 {
		t.Fatal("it did not wait:", <-done)
	}
	sem.release(memory / 2)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := job.budget.entries.Load(); got != 2*n+rememberedDepth {
		t.Errorf("%d entries were counted, there are %d", got, 2*n+rememberedDepth)
	}
	if !sem.tryAcquire(memory) {
		t.Error("it keeps memory")
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirIngest))); len(left) != 1 {
		t.Errorf("left: %v", left) // but for the lock
	}
}

// waiters is how many wait.
func (m *memory) waiters() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)
}

// Who has memory takes more of it while others wait, so that a layer with a large window is not decoded twice; those that wait come in turn, and leave nothing taken when they give up.
func TestMemoryInTurn(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	m := newMemory(10 << 20)
	n := &notes{shared: m, limit: 10 << 20}
	if err := m.acquire(ctx, 6<<20); err != nil {
		t.Fatal(err)
	}
	got := make(chan int64, 3)
	gone := make(chan error, 1)
	wait := func(ctx context.Context, need int64) {
		before := m.waiters()
		go func() {
			if err := m.acquire(ctx, need); err != nil {
				gone <- err
				return
			}
			got <- need
		}()
		if !testutil.Eventually(testutil.Time(time.Minute), func() bool { return m.waiters() > before }) {
			t.Fatal("it does not wait")
		}
	}
	wait(context.Background(), 8<<20)
	wait(ctx, 9<<20)
	wait(context.Background(), 2<<20)
	if err := n.grow(3 << 19); err != nil {
		t.Errorf("with 4 MiB left: %v", err)
	}
	if err := n.grow(1 << 20); err != nil {
		t.Errorf("with 2 MiB left: %v", err)
	}
	if err := n.grow(1 << 19); !errors.Is(err, errMemoryBusy) {
		t.Errorf("with nothing left: %v", err)
	}
	if len(got) > 0 {
		t.Fatalf("%d were there", <-got)
	}
	n.close()
	m.release(6 << 20)
	if first := <-got; first != 8<<20 {
		t.Errorf("%d came first", first)
	}
	cause := errors.New("enough")
	cancel(cause)
	if err := <-gone; err != cause {
		t.Error(err)
	}
	if second := <-got; second != 2<<20 { // it fits now that nobody is before it
		t.Errorf("%d came second", second)
	}
	m.release(10 << 20)
	if !m.tryAcquire(10 << 20) {
		t.Error("memory is missing")
	}
}

// Layers that fit one after another, and not together, are unpacked; one that does not fit alone is refused, and so are too many of the former.
func TestMemoryOfLayers(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{Limits: Limits{Memory: minMemory, Parallel: 4}})
	var blobs []blob
	for i := range 2 {
		blobs = append(blobs, plain(rememberedLayer(t, fmt.Sprint("d", i), 200)))
	}
	putImage(t, s, "fits", blobs...)
	if _, err := s.Unpack(ctx, "fits", UnpackOptions{}); err != nil {
		t.Error(err)
	}
	for name, b := range map[string][]blob{"large": {plain(rememberedLayer(t, "d", 400))}, "many": append(blobs, plain(rememberedLayer(t, "d2", 200)))} {
		putImage(t, s, name, b...)
		_, err := s.Unpack(ctx, name, UnpackOptions{})
		if le := (*LimitError)(nil); !errors.As(err, &le) || le.Limit != "Memory" || le.Max != minMemory || le.Need <= minMemory {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// hungryLayers are n, of files to be remembered, in zstd frames with these windows.
func hungryLayers(t testing.TB, n, files int, windows ...uint64) []blob {
	var out []blob
	for i := range n {
		var ents []ent
		for j := range files {
			ents = append(ents, file(fmt.Sprintf("%d/%0100d", i, j), "").with(ownedBy(7, 8, 0o640)))
		}
		data := layer(t, ents...)
		out = append(out, blob{parted(data, windows...), data})
	}
	return out
}

// Layers of which any one takes nearly all memory, after a beginning that takes little, are unpacked at once all the same, in all ways: they take turns.
func TestMemoryTakesTurns(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{Limits: Limits{Parallel: 8}, Policy: Policy{Owners: OwnersMapped}})
	putImage(t, s, "a", hungryLayers(t, 4, 100, 1<<10, 64<<20)...)
	for what, o := range map[string]UnpackOptions{"directories": {}, "EROFS": {EROFS: true}} {
		if u, err := s.Unpack(ctx, "a", o); err != nil || len(u.Dirs)+len(u.Blobs) != 4 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// roleHungry unpacks an image in a process of its own and tells the most memory that the process had.
func roleHungry() {
	s, err := Open(os.Getenv("STORE"), Options{Policy: Policy{Owners: OwnersMapped}, Limits: Limits{Parallel: 8}})
	if err == nil {
		_, err = s.Unpack(context.Background(), "a", UnpackOptions{EROFS: os.Getenv("EROFS") != ""})
	}
	status, serr := os.ReadFile("/proc/self/status")
	if err = errors.Join(err, serr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Println(strings.Fields(peak)[0])
}

// filledLayers are n, each with a file that is larger than its zstd window, so that all of it is used, and others to be remembered.
func filledLayers(t testing.TB, n, files, window int) []blob {
	var out []blob
	data := make([]byte, window+8<<20) // compressed to a tenth
	random := rand.NewChaCha8([32]byte{})
	for part := range slices.Chunk(data, 64<<10) {
		random.Read(part[:len(part)/10])
	}
	large := string(data)
	for i := range n {
		ents := []ent{file(fmt.Sprintf("%d/large", i), large)}
		for j := range files {
			ents = append(ents, file(fmt.Sprintf("%d/%0100d", i, j), "").with(ownedBy(7, 8, 0o640)))
		}
		data := layer(t, ents...)
		out = append(out, blob{zst(t, data, zstd.WithWindowSize(window), zstd.WithEncoderLevel(zstd.SpeedFastest)), data})
	}
	return out
}

// growingLayers are half of n filled ones in frames, each of which has a window twice as large as the one before it, and fills it.
func growingLayers(t testing.TB, n, files, window int) (out []blob) {
	for _, b := range filledLayers(t, n/2, files, 2*window) {
		var data []byte
		for rest, w := b.plain, 8<<20; len(rest) > 0; w = min(2*w, window) {
			part := rest[:min(len(rest), w+1<<20)]
			if w == window {
				part = rest
			}
			data, rest = append(data, zst(t, part, zstd.WithWindowSize(w), zstd.WithEncoderLevel(zstd.SpeedFastest))...), rest[len(part):]
		}
		out = append(out, blob{data, b.plain})
	}
	return out
}

// What a process takes at most, the program itself included, that unpacks such layers with the default limits and the runtime's own settings. A benchmark, since
// what the collector lets lie depends on when it runs.
func BenchmarkUnpackPeak(b *testing.B) {
	for what, c := range map[string]struct {
		env    string
		layers func(t testing.TB, n, files, window int) []blob
	}{"directories": {"", filledLayers}, "EROFS": {"yes", filledLayers}, "growing windows": {"", growingLayers}} {
		env := c.env
		b.Run(what, func(b *testing.B) {
			layers := c.layers(b, 8, 10_000, 64<<20)
			most := 0
			for b.Loop() {
				b.StopTimer()
				s := openStore(b, Options{})
				putImage(b, s, "a", layers...)
				cmd := testutil.Role("hungry", "STORE="+s.Dir(), "EROFS="+env, "GOGC=", "GOMEMLIMIT=")
				b.StartTimer()
				out, err := cmd.Output()
				if err != nil {
					b.Fatal(err)
				}
				most = max(most, must[int](b)(strconv.Atoi(strings.TrimSpace(string(out)))))
			}
			b.ReportMetric(float64(most)/1024, "peak-MiB")
		})
	}
}

func TestJSONBytes(t *testing.T) {
	for _, s := range []string{"", "usr/lib", "<&>\"\\\x01\x7f", "\xff\xfe", "ü\u2028"} {
		if data := must[[]byte](t)(json.Marshal(s)); jsonBytes(s) < len(data) {
			t.Errorf("%q: %d, it takes %d", s, jsonBytes(s), len(data))
		}
	}
}

// Beside a large window what entries leave behind is collected on the way, and beside the usual one that is the runtime's affair.
func TestMemoryCollected(t *testing.T) {
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	n := must[*notes](t)(Limits{}.withDefaults().alone(decodingOf(zstdFrame(64<<20, []byte("x")))))
	before := forced()
	for range 2 * notesEntries {
		n.entry()
	}
	if got := forced() - before; got < 2 {
		t.Errorf("collected %d times, want 2", got)
	}
	if usual := must[*notes](t)(Limits{}.withDefaults().alone(decodingOf(zstdFrame(8<<20, []byte("x"))))); !n.large() || usual.large() {
		t.Errorf("large: %v, %v", n.large(), usual.large())
	}
}
