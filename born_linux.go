package caisson

import (
	"context"
	"errors"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/stage"
)

// killsBorn reports whether a start has failed since its process was born in a cgroup, and this program did not know yet that the kernel kills
// those: the next one enters its group by itself.
func killsBorn(ctx context.Context, err error) bool {
	return (errors.As(err, new(*DiedError)) || errors.Is(err, errEndedEarly)) && tryBirth(ctx)
}

// tryBirth has a process be born in a new cgroup, unless it is known that none can, and reports whether it was killed.
func tryBirth(ctx context.Context) (killed bool) {
	if !stage.CanCloneInto() {
		return false
	}
	name := groupName("born")
	strike, err := recordGroup(name, "")
	if err != nil {
		return false
	}
	g, err := cgroups.New(ctx, name, cgroups.Resources{}, cgroups.Config{Controllers: cgroups.CPUAcct})
	if err != nil {
		strike()
		return false
	}
	if join, err := g.JoinFDs(); err == nil && join.CloneInto >= 0 {
		killed = stage.KillsBorn(join.CloneInto)
	}
	if deleteEnding(g) == nil {
		strike()
	}
	return killed
}
