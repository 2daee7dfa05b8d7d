// Package cgroups limits, measures, stops and kills groups of processes by Linux control groups: one API over
// cgroup v1, hybrid and v2, with no dependency but golang.org/x/sys. It asks systemd for groups where systemd owns them.
//
// # What a control group is
//
// A control group is a directory in a file system of the kernel's. Processes are in groups; a child process begins
// in the group of its parent. Controllers (memory, cpu, pids, …) act on groups: what is written into a file such as
// memory.max limits all processes of the group and of the groups below together, and files such as memory.peak tell
// what they used. Making a group is mkdir, removing it rmdir, entering it a write or a flag of clone3(2).
//
//	g, err := cgroups.New("job-1", cgroups.Resources{
//		Memory: cgroups.MemoryResources{Max: 64 << 20, Swap: cgroups.Zero},
//		CPU:    cgroups.CPUResources{CPUs: 0.5},
//		Pids:   cgroups.PidsResources{Max: 100},
//	}, cgroups.Config{})
//	if err != nil { … }
//	defer g.Delete(ctx)
//	err = g.AddProc(pid)
//
// # Three layouts
//
// v2: one tree. A group hands controllers on to its children (cgroup.subtree_control), and a group that does so has
// no processes itself, except the root ("no internal processes"). Mounted on /sys/fs/cgroup.
//
// v1: a tree for each controller, each with its own groups; a process has a place in every one. Mounted on
// /sys/fs/cgroup/memory and so on. Deprecated, and still met.
//
// hybrid: v1 with a v2 tree beside it, usually without controllers, on /sys/fs/cgroup/unified.
//
// The fields of [Resources] have the meaning of v2; on v1 they are translated where v1 has an equivalent, and
// otherwise refused with an [*UnsupportedError] that names controller and file.
//
// On a hybrid machine a group has a directory in the v2 tree too, unless [Config] says otherwise. It costs some
// 20 µs for its mkdir and as much for its rmdir, and saves the freezer and cpuacct directories, which cost the same
// each; and only with it can a group be killed without missing a process that forks, and be entered at clone.
//
// # Who may do what
//
//	                             v1, hybrid              v2
//	root                         everything              everything
//	user with delegation, or     nothing; v1 groups      what is delegated: usually memory and pids, often cpu
//	 logged in under systemd     handed over by chown
//	user without                 reading                 reading
//	root in a container          its subtree, if its     as a user with delegation; a group that has processes
//	                             mounts are writable     cannot hand on controllers: Vacate it first
//
// [Manager.Check] tells for this machine and user, with reasons and remedies.
//
// # systemd
//
// Where systemd runs it owns the v2 tree, and leaves to others only what it has delegated: elsewhere it takes controllers
// away from a group, and the limits with them, whenever the units beside it change. So [New] makes groups
//
//   - in the own group of the program or above, up to the unit that it runs in, if that unit has Delegate=yes;
//   - otherwise in a scope, with Delegate=yes, that the first New has systemd make, one for all groups of the program: by
//     root's in system.slice, by an ordinary user's, over the bus of the user's session, in app.slice. Nothing has to be
//     configured for this. A few pages of a process called caisson-scope hold it, and end with the program; systemd then removes
//     what is empty. Groups that are to outlive the program (Config.Outlive) have another such scope, which ends with the last of them;
//   - where systemd cannot be asked, wherever the kernel allows it, as without systemd.
//
// Config.Systemd gives a group a scope of its own instead, whose properties are the limits, so that systemctl shows
// them. Config.NoSystemd leaves systemd out of it.
//
// A program in a login session is outside of the user's tree of groups, and the kernel lets nobody but root move
// processes across: then [Join].Attach says that systemd has to move each process, which [Group.AddProc] asks it to.
//
// # Groups kept ready
//
// [NewPool] keeps groups ready, each for one use. Taking one does not wait for its directories to be made.
//
// # Groups within groups
//
// [Group.New] makes a group below another, with limits within those above it. [Group.Delegate] gives one to another user
// or to the root of a container, who can then do the same; [Manager.Vacate] moves the processes of the own group into a
// child, so that a program that was given a group can hand on controllers.
//
// # Controllers of other groups
//
// On v2 a group has a controller only if its parent hands it on, and often the parent belongs to somebody else. What is enabled there
// for a new group is noted on the parent (an extended attribute) and in the program's journal, and taken back when no group
// that was made there since is left: see [Manager.TakeBack]. What was enabled before stays.
//
// # What it does not do
//
// It does not move the calling process, unless told to by [Manager.Vacate] or Config.Vacate, and does not mount or unmount
// anything.
//
// Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel, cgroups(7), clone(2).
package cgroups
