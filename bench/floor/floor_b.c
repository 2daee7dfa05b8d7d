// Floor B: the best list of system calls known. It starts from an almost empty mount namespace, so that nothing of the
// host's mounts is copied or torn down; the new root covers the empty one instead of being pivoted to, so that nothing
// has to be unmounted; and kinds of masked paths are known before, since a bind of the wrong kind is dear.
#include "floor.h"
#include <sys/utsname.h>

static int template_ns = -1, detached;
static char is_dir[MAXLIST], is_there[MAXLIST], ro_there[MAXLIST];

// prepare_b makes the template: a mount namespace with one small read-only tmpfs. Once in a process's life.
void prepare_b(void) {
	struct utsname u;
	int major = 0, minor = 0;
	if (!uname(&u)) sscanf(u.release, "%d.%d", &major, &minor);
	detached = major > 6 || (major == 6 && minor >= 15);
	for (int i = 0; i < cfg.nmask; i++) {
		struct stat st;
		is_there[i] = !stat(cfg.mask[i], &st);
		is_dir[i] = is_there[i] && S_ISDIR(st.st_mode);
	}
	for (int i = 0; i < cfg.nro; i++) ro_there[i] = !access(cfg.ro[i], F_OK);
	int pipes[2][2];
	if (pipe(pipes[0]) || pipe(pipes[1])) { perror("pipe"); exit(1); }
	pid_t pid = fork();
	if (!pid) {
		char b = 0;
		if (unshare(CLONE_NEWNS) || mount("none", "/", 0, MS_REC|MS_PRIVATE, 0) ||
			mount("tmpfs", cfg.stage, "tmpfs", MS_NOSUID|MS_NODEV, "size=64k,nr_inodes=16,mode=0755") || chdir(cfg.stage) || mkdir("mnt", 0755) ||
			syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/") ||
			mount(0, "/", 0, MS_BIND|MS_REMOUNT|MS_RDONLY, 0)) { perror("template"); b = 1; }
		(void)!write(pipes[0][1], &b, 1);
		(void)!read(pipes[1][0], &b, 1);
		_exit(0);
	}
	char b = 1, path[64];
	if (read(pipes[0][0], &b, 1) != 1 || b) exit(1);
	snprintf(path, sizeof path, "/proc/%d/ns/mnt", pid);
	template_ns = open(path, O_RDONLY|O_CLOEXEC);
	(void)!write(pipes[1][1], "x", 1);
	waitpid(pid, 0, 0);
	for (int i = 0; i < 4; i++) close(pipes[i/2][i%2]);
}

static int set(int fs, int cmd, const char *key, const void *value) { return syscall(SYS_fsconfig, fs, cmd, key, value, 0); }

// root_b makes the root filesystem while the host's mounts are still in sight, attached nowhere: so the layer needs no
// clone of its own, which would have to be taken down again. Linux 6.15.
static int root_b(struct run *r, int *scratch) {
	int fs = syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	CK(fs);
	CK(set(fs, FSCONFIG_SET_STRING, "size", "268435456"));
	CK(set(fs, FSCONFIG_SET_STRING, "nr_inodes", "131072"));
	CK(set(fs, FSCONFIG_SET_STRING, "mode", "0700"));
	CK(set(fs, FSCONFIG_CMD_CREATE, 0, 0));
	CK(*scratch = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV));
	CK(fchdir(*scratch));
	CK(mkdir("u", 0755));
	CK(mkdir("w", 0700));
	fs = syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC);
	CK(fs);
	CK(set(fs, FSCONFIG_SET_STRING, "lowerdir+", cfg.root));
	CK(set(fs, FSCONFIG_SET_STRING, "upperdir", "u"));
	CK(set(fs, FSCONFIG_SET_STRING, "workdir", "w"));
	CK(set(fs, FSCONFIG_CMD_CREATE, 0, 0));
	int root;
	CK(root = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV));
	return root;
}

// cover_b covers the empty root with the new one, and keeps the scratch attached beneath: closing a mount that is
// attached nowhere would wait for a grace period, while what is attached goes together with the namespace.
static void cover_b(struct run *r, int root, int scratch) {
	CK(syscall(SYS_move_mount, scratch, "", AT_FDCWD, "/mnt", MOVE_MOUNT_F_EMPTY_PATH));
	CK(syscall(SYS_move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH));
	CK(fchdir(root));
	CK(chroot("."));
}

// root_old is what does both before Linux 6.15: the layer is attached, so the old root has to go.
static void root_old(struct run *r, int tree) {
	CK(mount("tmpfs", "/mnt", "tmpfs", MS_NOSUID|MS_NODEV, "size=268435456,nr_inodes=131072,mode=0700"));
	CK(chdir("/mnt"));
	CK(mkdir("0", 0700));
	CK(mkdir("u", 0755));
	CK(mkdir("w", 0700));
	CK(mkdir("m", 0755));
	CK(syscall(SYS_move_mount, tree, "", AT_FDCWD, "0", MOVE_MOUNT_F_EMPTY_PATH));
	CK(mount("overlay", "m", "overlay", MS_NODEV, "lowerdir=0,upperdir=u,workdir=w"));
	CK(chdir("m"));
	CK(syscall(SYS_pivot_root, ".", "."));
	CK(umount2(".", MNT_DETACH));
	CK(chdir("/"));
}

static void view_b(struct run *r) {
	if (cfg.viewv2) {
		CK(mount("cgroup", "/sys/fs/cgroup", "cgroup2", CONTAINED|MS_RDONLY, 0));
		return;
	}
	if (!cfg.nview) return;
	CK(mount("cgroup", "/sys/fs/cgroup", "tmpfs", CONTAINED, "mode=0755,size=64k"));
	CK(chdir("/sys/fs/cgroup"));
	for (int i = 0; i < cfg.nview; i++) {
		CK(mkdir(cfg.view[i], 0755));
		CK(mount("cgroup", cfg.view[i], "cgroup", CONTAINED|MS_RDONLY, cfg.view[i]));
	}
	CK(mount(0, "/sys/fs/cgroup", 0, CONTAINED|MS_RDONLY|MS_REMOUNT|MS_BIND, 0));
	CK(chdir("/"));
}

static void mounts_b(struct run *r) {
	CK(mount("proc", "proc", "proc", CONTAINED, 0));
	CK(mount("tmpfs", "dev", "tmpfs", MS_NOSUID|MS_STRICTATIME, "size=67108864,mode=0755"));
	CK(chdir("dev"));
	umask(0);
	device_nodes(r, AT_FDCWD);
	CK(mkdir("pts", 0755));
	CK(mount("devpts", "pts", "devpts", MS_NOSUID|MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
	CK(mkdir("shm", 0755));
	CK(mount("shm", "shm", "tmpfs", CONTAINED, "size=67108864"));
	CK(mkdir("mqueue", 0755));
	CK(mount("mqueue", "mqueue", "mqueue", CONTAINED, 0));
	CK(chdir("/"));
	CK(mount("sysfs", "sys", "sysfs", CONTAINED|MS_RDONLY, 0));
	view_b(r);
	for (int i = 0; i < cfg.nro; i++) {
		if (!ro_there[i]) continue;
		CK(mount(cfg.ro[i], cfg.ro[i], 0, MS_BIND|MS_REC, 0));
		CK(mount(0, cfg.ro[i], 0, MS_BIND|MS_REMOUNT|MS_RDONLY|CONTAINED, 0));
	}
	for (int i = 0; i < cfg.nmask; i++) {
		if (!is_there[i]) continue;
		if (is_dir[i]) CK(mount("tmpfs", cfg.mask[i], "tmpfs", MS_RDONLY|CONTAINED, "size=4k,nr_inodes=2"));
		else CK(mount("/dev/null", cfg.mask[i], 0, MS_BIND, 0));
	}
}

int child_b(void *run) {
	struct run *r = run;
	CK(setsid());
	if (r->cgroups)
		for (int i = 0; i < cfg.ngroup; i++)
			if (!cfg.group[i].v2) CK(write(r->tasks[i], "0", 1));
	int scratch = -1, root = -1, tree = -1;
	if (detached) root = root_b(r, &scratch);
	else CK(tree = syscall(SYS_open_tree, AT_FDCWD, cfg.root, OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC));
	CK(setns(template_ns, CLONE_NEWNS));
	CK(unshare(CLONE_NEWNS|CLONE_NEWCGROUP|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWNET));
	loopback(r);
	if (detached) cover_b(r, root, scratch);
	else root_old(r, tree);
	mounts_b(r);
	set_identity(r);
	return execute(r);
}
