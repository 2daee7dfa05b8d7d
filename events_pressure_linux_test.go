package caisson

import (
	"errors"
	"testing"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// A container whose processes want more CPU time than they are allowed stands still, and tells of it.
func TestPressureEvent(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	ctx := testContext(t)
	c, _ := start(t, ctx, sh("(while :; do :; done) & while :; do :; done"), WithCPUs(0.05))
	want := cgroups.PressureTrigger{Resource: cgroups.CPUPressure, Stall: 100 * time.Millisecond, Window: 2 * time.Second}
	for e, err := range c.Events(ctx, want) {
		if errors.Is(err, ErrUnsupported) {
			t.Skip("no triggers here: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == EventPressure {
			if e.Group == nil || e.Group.Trigger != want {
				t.Errorf("%+v", e.Group)
			}
			return
		}
	}
	t.Errorf("no event: %v", ctx.Err())
}
