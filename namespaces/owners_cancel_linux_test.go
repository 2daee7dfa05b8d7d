package namespaces

import (
	"context"
	"errors"
	"os"
	"testing"
)

// No call begins after the end of the context, also where the process is there.
func TestOwnersCancelled(t *testing.T) {
	auto, err := AutoIDMaps(RootIsCaller)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	o, err := NewOwners(ctx, auto.IDMaps)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cause := errors.New("enough")
	cancel(cause)
	if err := o.Chmod(int(f.Fd()), 0o600); err != cause {
		t.Errorf("after the end of the context: %v", err)
	}
}
