package netns

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// One has the turn at a time, who gives up leaves nothing behind, and directories are forgotten.
func TestTurns(t *testing.T) {
	testutil.NoLeaks(t)
	ctx := testContext(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	var in [2]int
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			for range 50 {
				s, err := takeTurn(ctx, dirs[i%2])
				if err != nil {
					t.Error(err)
					return
				}
				if in[i%2]++; in[i%2] != 1 {
					t.Error("two at once")
				}
				in[i%2]--
				s.end()
			}
		})
	}
	wg.Wait()
	one, err := takeTurn(ctx, dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := takeTurn(ended, dirs[0]); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	one.end()
	turns.mu.Lock()
	defer turns.mu.Unlock()
	for _, d := range dirs {
		if turns.all[d] != nil {
			t.Error("it is remembered")
		}
	}
}
