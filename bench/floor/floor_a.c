// Floor A: the straightforward list of system calls. All namespaces come from clone3, mounts from mount(2) in the
// order in which one would write them down, and kinds of masked paths are found by trying.
#include "floor.h"

static void root_a(struct run *r) {
	CK(mount("none", "/", 0, MS_REC|MS_PRIVATE, 0));
	CK(mount("tmpfs", cfg.stage, "tmpfs", MS_NOSUID|MS_NODEV, "size=268435456,nr_inodes=131072,mode=0700"));
	CK(chdir(cfg.stage));
	CK(mkdir("u", 0755));
	CK(mkdir("w", 0700));
	CK(mkdir("m", 0755));
	static char opts[4096];
	snprintf(opts, sizeof opts, "lowerdir=%s,upperdir=u,workdir=w", cfg.root);
	CK(mount("overlay", "m", "overlay", MS_NODEV, opts));
	CK(chdir("m"));
	CK(syscall(SYS_pivot_root, ".", "."));
	CK(umount2(".", MNT_DETACH));
	CK(chdir("/"));
}

static void view_a(struct run *r) {
	if (!cfg.nview && !cfg.viewv2) return;
	if (cfg.viewv2) {
		CK(mount("cgroup", "/sys/fs/cgroup", "cgroup2", CONTAINED|MS_RDONLY, 0));
		return;
	}
	CK(mount("cgroup", "/sys/fs/cgroup", "tmpfs", CONTAINED, "mode=0755,size=64k"));
	for (int i = 0; i < cfg.nview; i++) {
		char dir[128];
		snprintf(dir, sizeof dir, "/sys/fs/cgroup/%s", cfg.view[i]);
		CK(mkdir(dir, 0755));
		CK(mount("cgroup", dir, "cgroup", CONTAINED|MS_RDONLY, cfg.view[i]));
	}
	CK(mount(0, "/sys/fs/cgroup", 0, CONTAINED|MS_RDONLY|MS_REMOUNT|MS_BIND, 0));
}

static void mounts_a(struct run *r) {
	mkdir("/proc", 0755); mkdir("/dev", 0755); mkdir("/sys", 0755);
	CK(mount("proc", "/proc", "proc", CONTAINED, 0));
	CK(mount("tmpfs", "/dev", "tmpfs", MS_NOSUID|MS_STRICTATIME, "size=67108864,mode=0755"));
	int dev = open("/dev", O_PATH|O_DIRECTORY|O_CLOEXEC);
	CK(dev);
	umask(0);
	device_nodes(r, dev);
	umask(022);
	CK(mkdir("/dev/pts", 0755));
	CK(mount("devpts", "/dev/pts", "devpts", MS_NOSUID|MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
	CK(mkdir("/dev/shm", 0755));
	CK(mount("shm", "/dev/shm", "tmpfs", CONTAINED, "size=67108864"));
	CK(mkdir("/dev/mqueue", 0755));
	CK(mount("mqueue", "/dev/mqueue", "mqueue", CONTAINED, 0));
	CK(mount("sysfs", "/sys", "sysfs", CONTAINED|MS_RDONLY, 0));
	view_a(r);
	for (int i = 0; i < cfg.nro; i++) {
		if (mount(cfg.ro[i], cfg.ro[i], 0, MS_BIND|MS_REC, 0) < 0) continue;
		CK(mount(0, cfg.ro[i], 0, MS_BIND|MS_REMOUNT|MS_RDONLY|CONTAINED, 0));
	}
	for (int i = 0; i < cfg.nmask; i++)
		if (mount("/dev/null", cfg.mask[i], 0, MS_BIND, 0) < 0 && errno == ENOTDIR)
			CK(mount("tmpfs", cfg.mask[i], "tmpfs", MS_RDONLY|CONTAINED, "size=4k,nr_inodes=2"));
}

int child_a(void *run) {
	struct run *r = run;
	CK(setsid());
	if (r->cgroups)
		for (int i = 0; i < cfg.ngroup; i++)
			if (!cfg.group[i].v2) CK(write(r->tasks[i], "0", 1));
	CK(unshare(CLONE_NEWCGROUP));
	loopback(r);
	root_a(r);
	mounts_a(r);
	set_identity(r);
	return execute(r);
}
