// floor is a server: it reads requests from standard input, makes containers as asked, and answers with times.
//
//	A|B cg|nocg PROGRAM       a container; answer "EXIT TOTAL" in microseconds: until its end is known, and until
//	                          its figures are read and its groups removed
//	a|b cg|nocg PROGRAM       the same, and its standard output follows, up to a line with a dot
//	M cg|nocg N PROGRAM       N starts of B; answer: the median time of each of the child's steps
//	T A|B cg|nocg N PROGRAM   N starts one after the other; answer "SECONDS"
//	X ARG...                  an ordinary program, with tabs between the arguments; answer as above
//	x ARG...                  the same, with its output
#include "floor.h"

struct config cfg;
struct mark marks[512];
int nmarks, marking, nullfd;
static char stack[256 << 10] __attribute__((aligned(16)));
static int filterfd = -1;

double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec*1e6 + t.tv_nsec/1e3;
}

static void die(const char *what) { perror(what); exit(1); }

// clone_vfork makes a child that runs f on a stack of its own while this thread is stopped.
static long clone_vfork(struct clone_args *ca, int (*f)(void *), void *arg) {
#if defined(__x86_64__)
	long ret;
	register int (*rf)(void *) __asm__("r12") = f;
	register void *ra __asm__("r13") = arg;
	__asm__ volatile("syscall\n\ttest %%rax,%%rax\n\tjnz 1f\n\txor %%ebp,%%ebp\n\tmov %%r13,%%rdi\n\tcall *%%r12\n\thlt\n1:"
		: "=a"(ret) : "a"(SYS_clone3), "D"(ca), "S"(sizeof *ca), "r"(rf), "r"(ra) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long ret __asm__("x0") = (long)ca;
	register long size __asm__("x1") = sizeof *ca;
	register long nr __asm__("x8") = SYS_clone3;
	register int (*rf)(void *) __asm__("x19") = f;
	register void *ra __asm__("x20") = arg;
	__asm__ volatile("svc #0\n\tcbnz x0, 1f\n\tmov x29, #0\n\tmov x0, x20\n\tblr x19\n\tbrk #0\n1:"
		: "+r"(ret) : "r"(size), "r"(nr), "r"(rf), "r"(ra) : "memory", "x30");
#endif
	return ret;
}

static void put(int dir, const char *file, const char *value) {
	int fd = openat(dir, file, O_WRONLY|O_CLOEXEC);
	if (fd < 0) die(file);
	while (write(fd, value, strlen(value)) < 0) if (errno != EINTR) die(file);
	close(fd);
}

static void get(int dir, const char *file) {
	char buf[4096];
	int fd = openat(dir, file, O_RDONLY|O_CLOEXEC);
	if (fd < 0) return;
	if (read(fd, buf, sizeof buf) < 0) die(file);
	close(fd);
}

// start makes one container. It returns 0, or -1 after saying why.
static int start(int best, struct run *r, double *exited, double *total) {
	static unsigned serial;
	char name[64];
	int dir[8];
	double t0 = now();
	r->into = -1;
	if (r->cgroups) {
		snprintf(name, sizeof name, "caisson-floor-%d-%u", getpid(), serial++);
		for (int i = 0; i < cfg.ngroup; i++) {
			struct group *g = &cfg.group[i];
			if (mkdirat(g->parentfd, name, 0755)) die("mkdir cgroup");
			dir[i] = openat(g->parentfd, name, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
			if (dir[i] < 0) die("open cgroup");
			if (g->pids) put(dir[i], "pids.max", "4096");
			if (g->v2) r->into = dir[i];
			else if ((r->tasks[i] = openat(dir[i], "tasks", O_WRONLY|O_CLOEXEC)) < 0) die("tasks");
		}
	}
	int pidfd = -1, ok = 0, st = 0;
	uint64_t all = best ? 0 : CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWNET;
	struct clone_args ca = {.flags = CLONE_VM|CLONE_VFORK|CLONE_PIDFD|CLONE_CLEAR_SIGHAND|CLONE_NEWPID|all, .pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD, .stack = (uintptr_t)stack, .stack_size = sizeof stack};
	if (r->into >= 0) { ca.flags |= CLONE_INTO_CGROUP; ca.cgroup = r->into; }
	r->fail = 0;
	long pid = clone_vfork(&ca, best ? child_b : child_a, r);
	if (pid < 0) { printf("! clone3: %s\n", strerror(-pid)); ok = -1; }
	else {
		while (waitpid(pid, &st, 0) < 0 && errno == EINTR);
		close(pidfd);
	}
	*exited = now() - t0;
	if (r->cgroups)
		for (int i = 0; i < cfg.ngroup; i++) {
			struct group *g = &cfg.group[i];
			if (g->v2) get(dir[i], "cpu.stat");
			else if (g->cpuacct) get(dir[i], "cpuacct.usage");
			if (g->memory) {
				get(dir[i], g->v2 ? "memory.peak" : "memory.max_usage_in_bytes");
				get(dir[i], g->v2 ? "memory.events" : "memory.oom_control");
			}
			if (g->pids) get(dir[i], "pids.peak");
			if (!g->v2) close(r->tasks[i]);
			close(dir[i]);
			while (unlinkat(g->parentfd, name, AT_REMOVEDIR)) if (errno != EBUSY && errno != EINTR) die("rmdir cgroup");
		}
	*total = now() - t0;
	if (ok) return ok;
	if (r->fail) { printf("! %s (line %d): %s\n", r->what, r->fail, strerror(r->err)); return -1; }
	if (st) { printf("! wait status %#x\n", st); return -1; }
	return 0;
}

// spawn runs an ordinary program.
static int spawn(char *line, int outfd, double *total) {
	char *argv[256]; int n = 0;
	for (char *s = strtok(line, "\t"); s && n < 255; s = strtok(0, "\t")) argv[n++] = s;
	argv[n] = 0;
	if (filterfd >= 0) lseek(filterfd, 0, SEEK_SET);
	double t0 = now();
	pid_t pid = vfork();
	if (!pid) {
		dup2(nullfd, 0); dup2(outfd, 1); dup2(outfd, 2);
		execvp(argv[0], argv);
		_exit(127);
	}
	int st;
	while (waitpid(pid, &st, 0) < 0 && errno == EINTR);
	*total = now() - t0;
	if (st) { printf("! %s: wait status %#x\n", argv[0], st); return -1; }
	return 0;
}

// reap collects what the programs that were run have left to this process (PR_SET_CHILD_SUBREAPER).
static void reap(void) { while (waitpid(-1, 0, WNOHANG) > 0); }

static char outpath[4096];
static int capture(void) { return open(outpath, O_RDWR|O_CREAT|O_TRUNC|O_CLOEXEC, 0600); }
static void show(int fd) {
	char buf[1 << 16]; ssize_t n;
	lseek(fd, 0, SEEK_SET);
	while ((n = read(fd, buf, sizeof buf)) > 0) fwrite(buf, 1, n, stdout);
	close(fd);
	printf(".\n");
}

static int cmp(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }

static void steps(struct run *r, int n) {
	static double took[512][1024]; double e, t;
	static struct mark m[512]; int k = 0;
	if (n > 1024) n = 1024;
	marking = 1;
	for (int i = 0; i < n; i++) {
		nmarks = 0;
		if (start(1, r, &e, &t)) return;
		k = nmarks;
		memcpy(m, marks, sizeof m);
		for (int j = 0; j + 1 < k; j++) took[j][i] = m[j+1].at - m[j].at;
	}
	marking = 0;
	for (int j = 0; j + 1 < k; j++) {
		qsort(took[j], n, sizeof(double), cmp);
		printf("%8.1f %s\n", took[j][n/2], m[j].name);
	}
	printf(".\n");
}

static const char *next(int *i, int argc, char **argv) { if (++*i >= argc) { fprintf(stderr, "%s: no value\n", argv[*i-1]); exit(2); } return argv[*i]; }

static void parse(int argc, char **argv) {
	for (int i = 1; i < argc; i++) {
		char *a = argv[i];
		if (!strcmp(a, "-root")) cfg.root = next(&i, argc, argv);
		else if (!strcmp(a, "-stage")) cfg.stage = next(&i, argc, argv);
		else if (!strcmp(a, "-caps")) cfg.caps = strtoull(next(&i, argc, argv), 0, 0);
		else if (!strcmp(a, "-lastcap")) cfg.lastcap = atoi(next(&i, argc, argv));
		else if (!strcmp(a, "-mask") && cfg.nmask < MAXLIST) cfg.mask[cfg.nmask++] = next(&i, argc, argv);
		else if (!strcmp(a, "-ro") && cfg.nro < MAXLIST) cfg.ro[cfg.nro++] = next(&i, argc, argv);
		else if (!strcmp(a, "-view") && cfg.nview < MAXLIST) cfg.view[cfg.nview++] = next(&i, argc, argv);
		else if (!strcmp(a, "-viewv2")) cfg.viewv2 = 1;
		else if (!strcmp(a, "-group") && cfg.ngroup < 8) { // v1|v2,pids,memory:DIR
			struct group *g = &cfg.group[cfg.ngroup++];
			char *s = (char *)next(&i, argc, argv), *c = strchr(s, ':');
			if (!c) exit(2);
			*c = 0; g->parent = c + 1;
			g->v2 = !strncmp(s, "v2", 2); g->pids = !!strstr(s, "pids"); g->memory = !!strstr(s, "memory"); g->cpuacct = !!strstr(s, "cpuacct");
			if ((g->parentfd = open(g->parent, O_PATH|O_DIRECTORY|O_CLOEXEC)) < 0) die(g->parent);
		} else if (!strcmp(a, "-filter")) {
			static struct sock_filter f[4096];
			int fd = open(next(&i, argc, argv), O_RDONLY|O_CLOEXEC);
			ssize_t n = read(fd, f, sizeof f);
			if (n <= 0) die("filter");
			cfg.filter.len = n / sizeof *f; cfg.filter.filter = f;
			filterfd = fcntl(fd, F_DUPFD, 100); // for bubblewrap, which reads it: not closed at exec
			if (filterfd != 100) die("descriptor 100");
		} else { fprintf(stderr, "unknown argument %s\n", a); exit(2); }
	}
	if (!cfg.root || !cfg.stage || !cfg.filter.len) { fprintf(stderr, "-root, -stage and -filter are needed\n"); exit(2); }
}

int main(int argc, char **argv) {
	setvbuf(stdout, 0, _IOFBF, 1 << 16);
	nullfd = open("/dev/null", O_RDWR|O_CLOEXEC);
	parse(argc, argv);
	snprintf(outpath, sizeof outpath, "%s.out.%d", cfg.stage, getpid());
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	prepare_b();
	static char line[65536];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		double exited = 0, total = 0;
		struct run r = {.outfd = nullfd};
		char which[8] = "", cg[8] = "", prog[4096] = ""; int n = 0, failed = 0, out = -1;
		char c = line[0];
		if (c == 'X' || c == 'x') {
			if (c == 'x') out = capture();
			failed = spawn(line + 2, c == 'x' ? out : nullfd, &total);
			exited = total;
		} else if (c == 'M' && sscanf(line, "M %7s %d %4095s", cg, &n, prog) == 3) {
			r.prog = prog; r.cgroups = !strcmp(cg, "cg");
			steps(&r, n);
			fflush(stdout);
			continue;
		} else if (c == 'T' && sscanf(line, "T %7s %7s %d %4095s", which, cg, &n, prog) == 4) {
			r.prog = prog; r.cgroups = !strcmp(cg, "cg");
			double t0 = now();
			for (int i = 0; i < n && !failed; i++) failed = start(which[0] == 'B', &r, &exited, &total);
			if (!failed) printf("%.6f\n", (now() - t0)/1e6);
			fflush(stdout);
			continue;
		} else if (sscanf(line, "%7s %7s %4095s", which, cg, prog) == 3) {
			r.prog = prog; r.cgroups = !strcmp(cg, "cg");
			if (c == 'a' || c == 'b') r.outfd = out = capture();
			failed = start(c == 'B' || c == 'b', &r, &exited, &total);
		} else { printf("! unknown request\n"); failed = -1; }
		if (!failed) printf("%.1f %.1f\n", exited, total);
		if (out >= 0) { if (!failed) show(out); else close(out); }
		fflush(stdout);
		reap();
	}
	unlink(outpath);
	return 0;
}
