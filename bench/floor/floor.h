// The floors: what the kernel alone charges for a container like caisson's default one, made by a long-lived C
// process. floor_a.c has the straightforward list of system calls, floor_b.c the best list known.
#ifndef FLOOR_H
#define FLOOR_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Not from <sys/mount.h>, which cannot stand beside <linux/mount.h>.
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

#define MAXLIST 64
#define CONTAINED (MS_NOSUID|MS_NODEV|MS_NOEXEC)

struct group {         // a cgroup directory that the container's own is made in
	int v2, pids, memory, cpuacct;
	const char *parent;
	int parentfd;
};

// What to make. It comes from the command line, which the harness derives from what caisson explains.
struct config {
	const char *root, *stage;
	const char *mask[MAXLIST], *ro[MAXLIST], *view[MAXLIST];
	int nmask, nro, nview, viewv2;
	struct group group[8];
	int ngroup;
	uint64_t caps;
	int lastcap;
	struct sock_fprog filter;
};
extern struct config cfg;

// One start. The child shares the parent's memory (CLONE_VM|CLONE_VFORK) and reports here.
struct run {
	char *prog;
	int cgroups;          // whether groups are made
	int outfd;            // becomes 1; the null device otherwise
	int tasks[8];         // open files by which the child joins v1 groups
	int into;             // v2 directory for CLONE_INTO_CGROUP, or -1
	int fail, err;
	const char *what;
};

// The times of the child's steps, for the mode that prints them.
struct mark { const char *name; double at; };
extern struct mark marks[512];
extern int nmarks, marking;
double now(void);

#define CK(x) do { \
	if (marking && nmarks < 512) { marks[nmarks].name = #x; marks[nmarks++].at = now(); } \
	if ((long)(x) < 0) { r->fail = __LINE__; r->err = errno; r->what = #x; _exit(127); } \
} while (0)

int child_a(void *run);
int child_b(void *run);
void prepare_b(void);   // the template mount namespace
extern int nullfd;

// Steps that both lists share.
int set_identity(struct run *r);
int execute(struct run *r);
void loopback(struct run *r);
void device_nodes(struct run *r, int dev);
#endif
