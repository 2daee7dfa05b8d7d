package caisson

import "context"

// Owner can undo what a part of a program made and a killed program left behind. Package namespaces has such things
// (pinned namespaces); networks and image snapshots bring their own.
type Owner interface {
	// Name is under what the things were recorded: 'a' to 'z', digits, '.', '-' and '_'.
	Name() string
	// Undo undoes one thing from what was recorded about it, in the format of the given version. It returns nil
	// also when the thing is gone already or was never made. It must return when ctx ends: a call that goes on for some
	// seconds longer is left behind, and Undo may be called again for the same thing beside it. It may not touch what was
	// made later under the same name.
	Undo(ctx context.Context, version int, data []byte) error
}

// Recover undoes what dead programs of this user have left behind on the machine: cgroups, and whatever the given
// owners can undo. What nobody claims is kept, and is part of the error. Programs that live are not touched, this
// one included. It returns how many things were undone, with those
// that were found gone.
//
// It looks after the detached containers of the default state directory as well: see [StateDir.Recover]. Those that run
// live on.
//
// The first start of a container in a program recovers cgroups by itself, so calling Recover is needed only for other
// owners or without starting anything.
func Recover(ctx context.Context, owners ...Owner) (int, error) {
	n, err := recoverEverything(ctx, owners)
	if err != nil {
		err = &Error{Op: "recover", Err: err}
	}
	return n, err
}
