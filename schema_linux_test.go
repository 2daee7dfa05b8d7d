package caisson

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A state directory that an earlier release wrote, before the machine was started anew, is listed, loaded and emptied by
// this one: its results are not lost.
func TestStateOfEarlierReleases(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			noLeaks(t)
			d := stateDir(t)
			copyState(t, filepath.Join("internal/state/testdata", version), string(d))
			ctx := testContext(t)
			l, err := d.List(ctx)
			if err != nil || len(l) != 1 || l[0].ID != "web" || l[0].State != StateStopped || l[0].Labels["app"] != "shop" || l[0].Result == nil {
				t.Fatalf("%+v, %v", l, err)
			}
			c := load(t, d, "web")
			if r, err := c.Wait(ctx); err != nil || r.Signal != 9 || r.Reason != ReasonOOM {
				t.Errorf("%+v, %v", r, err)
			}
			if err := c.Remove(ctx); !errors.As(err, new(*UnclaimedError)) { // the network's owner is not known to this program
				t.Errorf("%v", err)
			}
			c.Close()
			own := &remembering{}
			again, err := d.Load(ctx, "web", own)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if err := again.Remove(ctx); err != nil {
				t.Fatal(err)
			}
			var thing struct{ If string }
			if err := json.Unmarshal(own.got, &thing); err != nil || thing.If != "v1" {
				t.Errorf("the owner was given %q: %v", own.got, err)
			}
			if l, err := d.List(ctx); err != nil || len(l) > 0 {
				t.Errorf("%+v, %v", l, err)
			}
		})
	}
}

// remembering is an owner that keeps what it is given.
type remembering struct{ got []byte }

func (*remembering) Name() string { return "netns.bridge" }

func (o *remembering) Undo(_ context.Context, _ int, data []byte) error {
	o.got = append(o.got, data...)
	return nil
}

// copyState copies a state directory, with the modes that such a directory has.
func copyState(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "web", "web/state.json", "web/status"} {
		mode := os.FileMode(0o700)
		if filepath.Ext(name) != "" || filepath.Base(name) == "status" {
			mode = 0o600
		}
		if err := os.Chmod(filepath.Join(to, name), mode); err != nil {
			t.Fatal(err)
		}
	}
}
