#include "floor.h"

// loopback raises the loopback device.
void loopback(struct run *r) {
	int s = socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, 0);
	CK(s);
	struct ifreq q;
	memset(&q, 0, sizeof q);
	strcpy(q.ifr_name, "lo");
	q.ifr_flags = IFF_UP|IFF_RUNNING;
	CK(ioctl(s, SIOCSIFFLAGS, &q));
	close(s);
}

// device_nodes fills /dev; the file creation mask is 0.
void device_nodes(struct run *r, int dev) {
	static const struct { const char *name; unsigned dev; } node[] = {
		{"null", 0x103}, {"zero", 0x105}, {"full", 0x107}, {"random", 0x108}, {"urandom", 0x109}, {"tty", 0x500}};
	static const char *link[][2] = {
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}, {"/proc/kcore", "core"}};
	for (int i = 0; i < 6; i++) CK(syscall(SYS_mknodat, dev, node[i].name, S_IFCHR|0666, node[i].dev));
	for (int i = 0; i < 6; i++) CK(symlinkat(link[i][0], dev, link[i][1]));
}

// set_identity connects the streams and takes on the final credentials. Raw system calls, since the C library would
// tell other threads, and this memory is the parent's.
int set_identity(struct run *r) {
	CK(sethostname("caisson", 7));
	CK(dup3(nullfd, 0, 0));
	CK(dup3(r->outfd, 1, 0));
	CK(dup3(r->outfd, 2, 0));
	for (int i = 0; i <= cfg.lastcap; i++)
		if (!(cfg.caps >> i & 1)) CK(prctl(PR_CAPBSET_DROP, i, 0, 0, 0));
	uint32_t zero = 0;
	CK(syscall(SYS_setgroups, 1, &zero));
	CK(syscall(SYS_setresgid, 0, 0, 0));
	CK(syscall(SYS_setresuid, 0, 0, 0));
	struct __user_cap_header_struct h = {0x20080522, 0};
	struct __user_cap_data_struct d[2] = {
		{(uint32_t)cfg.caps, (uint32_t)cfg.caps, 0}, {(uint32_t)(cfg.caps >> 32), (uint32_t)(cfg.caps >> 32), 0}};
	CK(syscall(SYS_capset, &h, d));
	return 0;
}

int execute(struct run *r) {
	CK(syscall(SYS_close_range, 3, ~0u, 4));
	uint64_t none = 0;
	CK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 8));
	umask(022);
	CK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CK(syscall(SYS_seccomp, 1, 0, &cfg.filter));
	char *argv[] = {r->prog, 0};
	static char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", 0};
	CK(execve(r->prog, argv, env));
	return 1;
}
