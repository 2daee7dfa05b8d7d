// Package state keeps what must be known about a container that outlives the program that started it: a directory of
// its own, with a record that is replaced as a whole, and a small file into which the container's keeper writes how the
// command ended. docs/state.md describes both; they are read by later releases.
//
//	dir/                     0700, as package journal finds it: /run/caisson/containers for root
//	  web/                   0700; flock(2) on it orders those who change something
//	    state.json           the record: who runs, in which cgroup, how it ended
//	    status               written by stage and keeper: when the command began, how and when it ended
//	    start                the socket on which a created container waits to be released
//
// Nobody but the user may write here, so the content is believed, once owner and mode have been checked; what
// cannot be understood is refused, and nothing is done to it.
package state
