package cgroups

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Config says how a new group is made. The zero value is good: the default parent, and the controllers that the
// limits need.
type Config struct {
	// Parent is the group in which the new one is made, as a path from the root of each hierarchy as this process
	// sees it: "/", "/machine.slice". It must exist wherever a controller asked for lives. Default (""): on v1 the
	// own group of this process in each hierarchy; on v2 the own group or the nearest ancestor in which this user
	// can make groups with the controllers asked for (see [Manager.Check]), or, where systemd manages those and has
	// not delegated them, a scope that systemd makes for the program. Ignored by [Group.New].
	Parent string
	// Controllers are wanted in addition to those the limits need: for statistics, for the OOM verdict, for limits
	// set later. One that cannot be had is an error.
	Controllers Controllers
	// Optional are wanted where they can be had. [Group.Controllers] tells.
	Optional Controllers
	// NoUnified leaves out, on a hybrid machine, the v2 group that is otherwise made beside the v1 ones. It costs one
	// mkdir and gives CPU time, freezing and killing that cannot miss a process, and entry at clone.
	// Ignored elsewhere.
	NoUnified bool
	// Late leaves the v1 directories to [Group.Complete]: meanwhile a process can be cloned into the v2 one and set
	// itself up, before it enters the others. Without effect on v2 alone, and ignored by [Group.New].
	Late bool
	// Systemd has the group made in a unit of its own; nil: it is not. Excludes Parent.
	Systemd *Scope
	// NoSystemd never asks systemd for anything. By default, on cgroup v2 where systemd manages the groups and has not
	// delegated the own one, the first group of a program has systemd make one scope for all groups of the program; see the
	// documentation of the package. Excludes Systemd.
	NoSystemd bool
	// Outlive has the group stay when this program ends, in whatever way, until somebody removes it ([Group.Delete], also of another
	// program). Without it systemd ends the scope that it made for a program that has ended as soon as no process is left in it, and the figures of the groups are lost.
	// Groups that outlive the program have a scope to themselves, held by a small process that looks once a second whether any is left: what else the
	// program has goes with the program. Groups elsewhere stay anyway: for them it changes nothing.
	Outlive bool
	// Vacate, if not "", is the name of a group into which the processes of the own group, this program among them, are
	// moved when nothing else stands in the way of making groups in it, as [Manager.Vacate] does. v2 only.
	Vacate string
	// MakeParent makes what is missing of Parent; it stays when the group is removed. On v2 the controllers are handed
	// on along the way, on v1 a new cpuset takes over the CPUs and memory nodes of its parent.
	MakeParent bool
}

// Validate reports every fault of c that can be seen without asking the machine, joined; each is a [*ResourceError].
func (c *Config) Validate() error {
	var unknown error
	if bad := (c.Controllers | c.Optional) &^ all; bad != 0 {
		unknown = &ResourceError{Field: "Controllers", Value: fmt.Sprintf("%#x", uint16(bad)), Reason: "are not known"}
	}
	var f faults
	f.scope(c.Systemd)
	if c.Systemd != nil && (c.Parent != "" || c.NoSystemd) {
		f.add("Systemd", c.Parent, "excludes Parent and NoSystemd: the group is in the unit")
	}
	if c.Vacate != "" {
		if why := nameFault(c.Vacate); why != "" {
			f.add("Vacate", c.Vacate, why)
		}
	}
	return errors.Join(append(f, checkParent(c.Parent), unknown)...)
}

func checkParent(p string) error {
	if p != "" && (p[0] != '/' || strings.ContainsRune(p, 0) || path.Clean(p) != p) {
		return &ResourceError{Field: "Parent", Value: p, Reason: "is not a clean path from the root of the hierarchy"}
	}
	return nil
}
