package cgroups

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
