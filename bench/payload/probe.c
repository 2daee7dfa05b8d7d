// probe prints what contains it, one "key: value" line for each fact, so that engines can be compared. It is linked
// statically and works without any file of the root filesystem but /proc.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <errno.h>

static void status(void) {
	static const char *want[] = {"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "NSpid", "Umask", 0};
	FILE *f = fopen("/proc/self/status", "r");
	char line[4096];
	while (f && fgets(line, sizeof line, f))
		for (int i = 0; want[i]; i++) {
			size_t n = strlen(want[i]);
			if (!strncmp(line, want[i], n) && line[n] == ':')
				printf("status %s", line);
		}
	if (f) fclose(f);
}

static void mounts(void) {
	FILE *f = fopen("/proc/self/mountinfo", "r");
	char line[8192];
	int n = 0;
	while (f && fgets(line, sizeof line, f)) {
		char *at[64]; int k = 0;
		for (char *s = strtok(line, " \n"); s && k < 64; s = strtok(0, " \n")) at[k++] = s;
		int dash = 0;
		for (int i = 6; i < k; i++) if (!strcmp(at[i], "-")) { dash = i; break; }
		if (!dash) continue;
		n++;
		printf("mount %s: %s %s\n", at[4], at[dash+1], at[5]);
	}
	printf("mounts: %d\n", n);
	if (f) fclose(f);
}

static void lines(const char *key, const char *path) {
	FILE *f = fopen(path, "r");
	char line[1024];
	while (f && fgets(line, sizeof line, f)) printf("%s: %s", key, line);
	if (f) fclose(f);
}

static void fds(void) {
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(d)) printf("fd: %s\n", e->d_name);
	if (d) closedir(d);
}

static void kinds(void) {
	static const char *p[] = {"/dev/null","/dev/zero","/dev/full","/dev/random","/dev/urandom","/dev/tty","/dev/fd","/dev/stdin","/dev/stdout","/dev/stderr","/dev/ptmx","/dev/core","/dev/shm","/dev/mqueue","/dev/pts",0};
	for (int i = 0; p[i]; i++) {
		struct stat st;
		if (lstat(p[i], &st)) printf("path %s: none\n", p[i]);
		else printf("path %s: %o %llx\n", p[i], st.st_mode, (unsigned long long)st.st_rdev);
	}
	static const char *masked[] = {"/proc/acpi","/proc/interrupts","/proc/kcore","/proc/keys","/proc/timer_list","/proc/scsi","/sys/firmware",0};
	for (int i = 0; masked[i]; i++) {
		struct stat st;
		if (stat(masked[i], &st)) { printf("hidden %s: none\n", masked[i]); continue; }
		int n = 0;
		if (S_ISDIR(st.st_mode)) { DIR *d = opendir(masked[i]); while (d && readdir(d)) n++; if (d) closedir(d); n -= 2; }
		else { char b[64]; int f = open(masked[i], O_RDONLY); if (f >= 0) { n = read(f, b, sizeof b); close(f); } }
		printf("hidden %s: %s\n", masked[i], n > 0 ? "no" : "yes");
	}
	static const char *writes[] = {"/proc/sys/kernel/hostname","/proc/sysrq-trigger","/sys/kernel/mm/ksm/run","/sys/fs/cgroup/pids/pids.max","/sys/fs/cgroup/pids.max",0};
	for (int i = 0; writes[i]; i++) {
		int f = open(writes[i], O_WRONLY);
		printf("write %s: %s\n", writes[i], f >= 0 ? "allowed" : strerror(errno));
		if (f >= 0) close(f);
	}
	int f = open("/caisson-probe", O_CREAT|O_WRONLY, 0600);
	printf("write /: %s\n", f >= 0 ? "allowed" : strerror(errno));
	if (f >= 0) { close(f); unlink("/caisson-probe"); }
}

int main(void) {
	struct utsname u;
	uname(&u);
	printf("pid: %d\n", getpid());
	printf("session leader: %s\n", getsid(0) == getpid() ? "yes" : "no");
	printf("hostname: %s\n", u.nodename);
	status();
	mounts();
	lines("cgroup", "/proc/self/cgroup");
	fds();
	kinds();
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq r; memset(&r, 0, sizeof r); strcpy(r.ifr_name, "lo");
	if (s >= 0 && !ioctl(s, SIOCGIFFLAGS, &r)) printf("loopback: %s\n", r.ifr_flags & IFF_UP ? "up" : "down");
	struct if_nameindex *ni = if_nameindex();
	int n = 0;
	for (; ni && ni[n].if_index; n++);
	printf("interfaces: %d\n", n);
	return 0;
}
