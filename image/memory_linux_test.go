package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

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
	sem := semaphore.NewWeighted(memory)
	if err := sem.Acquire(ctx, memory/2); err != nil { // as another layer does
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
	testutil.Eventually(time.Minute, func() bool { return len(done) > 0 || !sem.TryAcquire(0) }) // somebody waits
	if len(done) > 0 {
		t.Fatal("it did not wait:", <-done)
	}
	sem.Release(memory / 2)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := job.budget.entries.Load(); got != 2*n+rememberedDepth {
		t.Errorf("%d entries were counted, there are %d", got, 2*n+rememberedDepth)
	}
	if !sem.TryAcquire(memory) {
		t.Error("it keeps memory")
	}
	if left := must[[]os.DirEntry](t)(os.ReadDir(s.path(dirIngest))); len(left) != 1 {
		t.Errorf("left: %v", left) // but for the lock
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

func TestJSONBytes(t *testing.T) {
	for _, s := range []string{"", "usr/lib", "<&>\"\\\x01\x7f", "\xff\xfe", "ü\u2028"} {
		if data := must[[]byte](t)(json.Marshal(s)); jsonBytes(s) < len(data) {
			t.Errorf("%q: %d, it takes %d", s, jsonBytes(s), len(data))
		}
	}
}
