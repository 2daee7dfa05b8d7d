// Package caisson lets any Go program run Linux containers itself: no daemon, no cgo, no helper binary, no
// re-execution of the program, no call in main, and nothing that happens because the package was imported.
//
// # A first program
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"os"
//
//		"github.com/caisson-go/caisson"
//	)
//
//	func main() {
//		c, err := caisson.New(caisson.WithCommand("echo", "hello from a container"), caisson.WithStdout(os.Stdout))
//		if err != nil {
//			log.Fatal(err)
//		}
//		defer c.Close()
//		if err := c.Run(context.Background()); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// More is one option more: another root filesystem, [WithRootfs] with rootfs.Dir("/srv/alpine"); limits, [WithMemory],
// [WithCPUs], [WithPids], [WithTimeout]; another user, [WithUser]; a directory of the host, [WithMount]; a terminal,
// [WithTerminal]. The packages rootfs, namespaces and cgroups are useful without a container.
//
// # Life
//
//	New ──▶ new ──Start──▶ running ──the command ends──▶ stopped ──Close──▶ closed
//	         └───Create──▶ created ──Start──▶ running        └──Start──▶ running
//
// [New] judges the wish: it reports all faults of the options at once, touches nothing, and works on every operating
// system. [Container.Check] asks this machine. [Container.Explain] prints every system call of the start before
// anything is done. [Container.Start] returns when the command has been executed; what it had made before an error is
// undone. [Container.Create] stops just before the command, for whoever has something to do in between.
//
// [Container.Wait] gives a [Result]: exit code or signal, the [Reason] (exited, out of memory, timed out, too much
// output, a full disk), and what was used. When the container's first process ends, the kernel ends all others in it. The
// root filesystem stays readable until Close ([Container.Root]).
//
// A running container can be stopped where it is ([Container.Pause], [Container.Resume]), given other limits
// ([Container.Update]) and looked at
// ([Container.Stats], [Container.Top]). [Container.Events] tells what happens to it. Further processes are started in it
// ([Container.Exec]), filesystems mounted ([Container.Mount], [Container.Unmount]), files copied ([Container.CopyIn],
// [Container.CopyOut]) and sockets opened ([Container.Dial], [Container.Listen]): by short-lived processes that enter it, so
// that hostile processes inside can spoil the result for themselves and lead it nowhere else.
//
// The container lives no longer than the host program: when that ends, in whatever way, SIGKILL included, a small
// process (the keeper; one for the whole program, without a Go runtime) kills every container's first process, and the
// kernel takes namespaces and mounts with it. The cgroups are removed by the next start or [Recover] of any caisson
// program of the same user. Two limits: who kills the keeper and the host program in the same moment leaves containers
// running until that recovery, which finds them by their cgroups; and with the host's pid namespace only the first
// process ends so, the others with the cgroup.
//
// Between containers a program keeps the keeper, a few open files, and, for five seconds after the last of several starts by root, a network
// namespace for the next one.
//
// [WithDetached] makes a container that outlives the program: [Load] finds it by its id, in this program or another, and
// how it ended is known even if nobody was there. [Container.Close] then only lets go of it; [Container.Remove] ends and
// removes it. [List] shows all of a user's.
//
// [WithLog] writes the output to files that are rotated ([Container.Logs] reads them), [WithRestart] starts a command again,
// [WithHealthCheck] asks whether it is well ([Container.Health]), and [Container.Attach] connects with the streams of a running
// one. A detached container can have all of it too, and a terminal, by a program that supervises it and lives as long: see
// [WithMonitor].
//
// A program that starts many commands in containers of one kind keeps some ready: a [Pool] makes them up to the point
// where only the command is missing. Each is used once.
//
// The context of a call bounds that call. It ends a start that is under way, and so do [Container.Stop] and
// [Container.Close], at once, whatever the start waits for; what ends a running command is Stop, Close, a limit, the
// context of [Container.Run], or that given to [WithContext].
//
// # What contains a container by default
//
//   - New mount, pid, network, ipc, uts and cgroup namespaces. The network has a loopback device and nothing else.
//     A time namespace only with offsets.
//   - A user namespace, always when the caller lacks CAP_SYS_ADMIN, and for root with the default root filesystem, with
//     [WithIDMaps], or when asked for: [WithNamespace](namespaces.User, namespaces.New()).
//   - The default root filesystem shows the host's programs ([rootfs.Host]) and hides the files of its users. A root
//     filesystem lies under a layer that takes all changes and vanishes, unless its source says otherwise
//     ([rootfs.Dir] with Writable or ReadOnly). No device file of its own works.
//   - 13 capabilities, in every set but the inheritable and the ambient one; none for users other than root.
//   - The seccomp filter that Docker uses, adapted to the capabilities.
//   - no_new_privs: set-user-ID programs gain nothing.
//   - Paths of /proc and /sys that tell about the host or reach its hardware are hidden or read-only.
//   - No file descriptor of the host program but the standard streams, nor its environment, terminal, or session.
//   - At most 4096 processes, where a cgroup can be written.
//
// [Container.Isolation] lists what holds, and what a default could not have on this machine, with reason and remedy. What
// was asked for by an option and cannot be had is an error.
//
// Without a user namespace (root, with a root filesystem of its own) the container's root user is the host's, held by
// capabilities and seccomp alone. Ask for a user namespace when the program inside is not trusted; why it is not the
// default there is told in docs/architecture.md.
//
// # Privileges
//
//	                        root                     user, under systemd or      user
//	                                                 with a delegated cgroup
//	namespaces              all                      all but the host's user     the same
//	user ids inside         65536, or the host's     65536 with subordinate ids  the same
//	                                                 (newuidmap), otherwise 1
//	limits and figures      all                      cgroup v2: what is          none; asking is an error
//	                                                 delegated
//	WithTimeout,            yes                      yes                         yes
//	 WithOutputLimit
//	WithCPUTime             all processes together   with cpu figures, the same  each process by itself
//	root filesystem         any                      any that it can read        any that it can read
//	writable directory      as the mapped user       as the caller               as the caller
//	devices                 default, and any given;  default, bound from the     the same
//	                        device rules             host
//	the whole start costs   one process more once    with subordinate ids,       the same
//	                        (the keeper)             newuidmap runs
//
// With cgroup v2 a user who is logged in, or has lingering enabled (loginctl enable-linger), has limits without further ado:
// the first container has the user's systemd make a scope for the program's containers. As root it is the system's
// systemd, unless the program runs in a unit with Delegate=yes. See package cgroups.
//
// # Kernels
//
// Linux 5.14 or later on amd64 and arm64, with cgroup v1, hybrid, v2, or without. docs/kernels.md lists which feature
// needs what, and what was tested where. On other systems everything compiles, and what needs the kernel returns errors
// that match [errors.ErrUnsupported].
//
// # What is not protected
//
//   - The kernel is shared. A fault in it that the allowed system calls reach is a way out.
//   - What an option hands over is trusted with the container: mounts, devices, open files, networks, added capabilities,
//     a filter that was left out.
//   - Processors leak through their caches and timing; other containers and the host can be observed that way.
//   - Without limits a container can use up memory, disk bandwidth and processor time of the host.
//   - Files that the host lets everyone read can be read under [rootfs.Host]. With rootfs.HostAll the host's secrets
//     can be read too, as the name says.
//   - The host program itself is trusted; the container's processes, its files and its user database are not. Other users of the machine
//     are not trusted either.
//
// # When not to use it
//
// For code that attacks kernels, use a virtual machine or gVisor. For images, networks and volumes, Docker or Podman. For an OCI runtime
// below Kubernetes, runc or crun. To restrict the own program rather than start another, Landlock.
package caisson
