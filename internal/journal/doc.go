// Package journal records what a program owns outside of its own memory (directories of cgroups, mounts, network
// devices), so that another program can undo it after the first was killed.
//
// Every process appends to a file of its own, in a directory that only its user can read, and holds a lock on the
// file for as long as it lives. Whoever can take the lock of another's file knows that its process is dead:
// no process id is compared, so none can be mistaken for another.
//
//	dir/                        0700
//	  4711-8833021.journal      the process 4711 that was started at tick 8833021
//	  4712-8833107.journal
//
// The file is text, a line an entry, each written with one write(2):
//
//	caisson-journal 1 6f2b6c1e-...              the boot id: after a reboot the entries are void
//	add 1 cgroups.dir 1 {"path":"/sys/fs/cgroup/caisson-1"}
//	add 2 namespaces.pin 1 {"path":"/run/netns/blue"}
//	done 1
//
// Nothing is synced to disk: what is recorded does not survive a reboot either.
package journal
