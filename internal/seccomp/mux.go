package seccomp

import "slices"

// 32-bit x86 can make socket and System V IPC calls in two ways: by a number
// of their own (some only since Linux 4.3 and 5.1), and through socketcall(2)
// and ipc(2), whose first argument says which call is meant
// (include/uapi/linux/net.h, ipc.h). A rule on such a name must cover both.
var socketcalls = [...]string{
	1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname",
	7: "getpeername", 8: "socketpair", 9: "send", 10: "recv", 11: "sendto", 12: "recvfrom",
	13: "shutdown", 14: "setsockopt", 15: "getsockopt", 16: "sendmsg", 17: "recvmsg",
	18: "accept4", 19: "recvmmsg", 20: "sendmmsg",
}

var ipcs = [...]string{
	1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv",
	13: "msgget", 14: "msgctl", 21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl",
}

// muxed returns the call through which name can also be made on 32-bit x86,
// and the condition that tells it is meant.
func muxed(name string) (through string, when cond, ok bool) {
	if !maybeMuxed(name) {
		return "", cond{}, false
	}
	for i, n := range socketcalls {
		if n == name {
			return "socketcall", cond{arg: 0, op: opEQ, value: uint64(i)}, true
		}
	}
	for i, n := range ipcs {
		if n == name {
			// The upper half of ipc's first argument is a version, and no part of which call it is.
			return "ipc", cond{arg: 0, op: opMaskedEQ, value: 0xffff, value2: uint64(i)}, true
		}
	}
	return "", cond{}, false
}

// maybeMuxed rules most names out: each name of a profile is asked about.
func maybeMuxed(name string) bool {
	if len(name) < len("bind") || len(name) > len("getsockname") {
		return false
	}
	switch name[0] {
	case 'a', 'b', 'c', 'g', 'l', 'm', 'r', 's':
		return true
	}
	return false
}

// partial returns the names whose rules look at arguments that socketcall or
// ipc would hide.
func partial(rules []rule) []string {
	var out []string
	for _, r := range rules {
		if len(r.conds) == 0 {
			continue
		}
		for _, call := range r.calls {
			name := nameAt(call)
			if _, _, ok := muxed(name); ok && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}
