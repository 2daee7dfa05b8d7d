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
	// can make groups with the controllers asked for (see [Manager.Check]). Ignored by [Group.New].
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
}

func (c *Config) validate() error {
	var unknown error
	if bad := (c.Controllers | c.Optional) &^ all; bad != 0 {
		unknown = &ResourceError{Field: "Controllers", Value: fmt.Sprintf("%#x", uint16(bad)), Reason: "are not known"}
	}
	return errors.Join(checkParent(c.Parent), unknown)
}

func checkParent(p string) error {
	if p != "" && (p[0] != '/' || strings.ContainsRune(p, 0) || path.Clean(p) != p) {
		return &ResourceError{Field: "Parent", Value: p, Reason: "is not a clean path from the root of the hierarchy"}
	}
	return nil
}
