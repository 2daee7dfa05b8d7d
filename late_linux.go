package caisson

import (
	"context"
	"errors"
	"fmt"
)

// On cgroup v1 a group consists of a directory in each of several hierarchies, which take as long to make as the network
// namespace that the stage makes meanwhile: the v2 directory, in which the process is born, is there before, the others
// are made after it.

// errLate marks that the rest of a group could not be made.
var errLate = errors.New("complete the cgroup")

// mayBeLate says whether a part of the group may be left for later. A user's process cannot enter it any more when it is
// in its namespaces, and where somebody else makes groups, or they are given away or recorded, all has to be there.
func (r *running) mayBeLate() bool {
	return !r.early && !r.m.joinPID && r.m.userns == usernsNone && !r.spec.alone && !r.spec.detach.on && r.spec.cgroup == (CgroupConfig{})
}

// testHookComplete lets tests have the rest of a group fail.
var testHookComplete func() error

// completeGroup makes the rest of the group and lets the stage enter it.
func (r *running) completeGroup(ctx context.Context) error {
	if !r.m.late {
		return nil
	}
	err := r.group.Complete(ctx)
	if testHookComplete != nil {
		err = errors.Join(err, testHookComplete())
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w: %w", errLate, err)
	}
	join, err := r.group.JoinFDs()
	if err != nil {
		return err
	}
	return r.child.Conn.Send(join.Tasks...)
}
