package cgroups

// Join holds the open files by which a process enters a group. They belong to the group and are valid until it is
// closed or deleted; all are close-on-exec.
type Join struct {
	// CloneInto is the group's v2 directory, for clone3(2) with CLONE_INTO_CGROUP (Linux 5.7) or
	// syscall.SysProcAttr.CgroupFD; -1 when the group has none. A process made so is inside from its first
	// instruction, and nothing waits. A frozen group makes the clone wait until it is thawed: see [Group.Frozen].
	CloneInto int
	// Tasks are the v1 "tasks" files, open for writing. A process with one thread that writes "0" to each is inside,
	// without the wait of some 10 ms that writing to cgroup.procs has on an idle machine.
	Tasks []int
	// Attach says that no process of this program can enter the group, and systemd must move it there: after its
	// start, and before it does anything that counts, the process is handed to [Group.AddProc]. It is so for a program
	// in a login session whose group is in a scope of the user's systemd: the kernel (cgroups(7), "delegation") asks
	// for a group above both that the user may write to. CloneInto is -1 then.
	Attach bool
}
