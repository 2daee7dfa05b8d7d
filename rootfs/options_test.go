package rootfs

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"
)

func TestParseMount(t *testing.T) {
	for _, tt := range []struct {
		fstype, source, target, options string
		want                            Mount
	}{
		{"proc", "proc", "/proc", "nosuid,noexec,nodev", Mount{Type: TypeProc, Source: "proc", Target: "/proc", Set: NoSuid | NoExec | NoDev}},
		{"proc", "proc", "/proc", "hidepid=invisible,gid=7,subset=pid", Mount{Type: TypeProc, Source: "proc", Target: "/proc", HidePID: HideProcesses, GID: 7, ProcessesOnly: true}},
		{"proc", "proc", "/proc", "hidepid=4", Mount{Type: TypeProc, Source: "proc", Target: "/proc", HidePID: HideUntraceable}},
		{"tmpfs", "tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k", Mount{Type: TypeTmpfs, Source: "tmpfs", Target: "/dev",
			Set: NoSuid | StrictAtime, Mode: 0o755, Size: 64 << 20}},
		{"tmpfs", "", "/t", "mode=1777,uid=1,gid=2,nr_inodes=5k", Mount{Type: TypeTmpfs, Target: "/t", Mode: fs.ModeSticky | 0o777, UID: 1, GID: 2, Inodes: 5120}},
		{"tmpfs", "", "/t", "context=\"a:b:c:s0\"", Mount{Type: TypeTmpfs, Target: "/t", Label: "a:b:c:s0"}},
		{"devpts", "devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5", Mount{Type: TypeDevpts, Source: "devpts",
			Target: "/dev/pts", Set: NoSuid | NoExec, Mode: 0o620, GID: 5}},
		{"bind", "/a", "/b", "rbind,ro,rslave", Mount{Type: TypeBind, Source: "/a", Target: "/b", Recursive: true, Set: ReadOnly, Propagation: Slave}},
		{"", "/a", "/b", "bind", Mount{Type: TypeBind, Source: "/a", Target: "/b"}},
		{"none", "/a", "/b", "rbind,rro,rnosuid,shared", Mount{Type: TypeBind, Source: "/a", Target: "/b", Recursive: true,
			SetAll: ReadOnly | NoSuid, Propagation: Shared, PropagationTop: true}},
		{"bind", "/a", "/b", "bind,ro,rw,noatime,relatime,idmap", Mount{Type: TypeBind, Source: "/a", Target: "/b", Set: Relatime, Clear: ReadOnly, IDMap: MappedTop}},
		{"bind", "/a", "/b", "rbind,ridmap,rprivate,unbindable", Mount{Type: TypeBind, Source: "/a", Target: "/b", Recursive: true, IDMap: MappedAll,
			Propagation: Unbindable, PropagationTop: true}},
		{"cgroup2", "cgroup", "/sys/fs/cgroup", "ro", Mount{Type: TypeCgroup, Source: "cgroup", Target: "/sys/fs/cgroup", Set: ReadOnly}},
		{"tmpfs", "tmpfs", "/x", "remount,ro,exec", Mount{Type: TypeRemount, Target: "/x", Set: ReadOnly, Clear: NoExec}},
		{"", "/a", "/x", "rw,bind,remount", Mount{Type: TypeRemount, Target: "/x", Clear: ReadOnly}},
		{"overlay", "overlay", "/o", "lowerdir=/a:/b,upperdir=/u/u,workdir=/u/w,volatile", Mount{Type: TypeOverlay, Source: "overlay", Target: "/o",
			Lower: []string{"/a", "/b"}, Upper: "/u/u", Work: "/u/w", Volatile: true}},
	} {
		got, err := ParseMount(tt.fstype, tt.source, tt.target, split(tt.options))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("ParseMount(%q, %q, %q, %q) = %+v, %v; want %+v", tt.fstype, tt.source, tt.target, tt.options, got, err, tt.want)
		}
	}
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func TestParseMountRefuses(t *testing.T) {
	for _, tt := range []struct{ fstype, source, target, options string }{
		{"ext4", "/dev/sda", "/x", ""}, {"", "/a", "/b", ""}, {"bind", "/a", "/b", "remount"}, {"bind", "/a", "/b", "move"},
		{"bind", "/a", "/b", "bind,rro"}, {"bind", "a", "/b", "bind"}, {"bind", "/a", "b", "bind"}, {"bind", "/a", "/", "bind"},
		{"bind", "/a", "/b/../c", "bind"}, {"bind", "/a", "/proc", "size=1"}, {"bind", "/a", "/proc/sys", "bind"}, {"tmpfs", "", "/proc", ""},
		{"proc", "", "/etc", ""}, {"sysfs", "", "/x", ""}, {"tmpfs", "", "/x", "size=1x"}, {"tmpfs", "", "/x", "context="}, {"tmpfs", "", "/x", "context=a b"},
		{"tmpfs", "", "/x", "context=a\"b"}, {"tmpfs", "", "/x", "context=" + strings.Repeat("a", 256)}, {"bind", "/a", "/x", "bind,context=a:b:c"}, {"proc", "", "/proc", "context=a:b:c"},
		{"mqueue", "", "/dev/mqueue", "ro,context=a:b:c"}, {"tmpfs", "", "/x", "size=9999999999g"},
		{"proc", "", "/proc", "hidepid=3"}, {"proc", "", "/proc", "hidepid="}, {"proc", "", "/proc", "subset=sys"}, {"tmpfs", "", "/x", "hidepid=1"}, {"sysfs", "", "/sys", "subset=pid"},
		{"tmpfs", "", "/x", "uid=4294967295"}, {"tmpfs", "", "/x", "mode=888"}, {"tmpfs", "", "/x", "mpol=bind:0"}, {"tmpfs", "", "/x", "rbind"},
		{"tmpfs", "", "/x", "idmap"}, {"tmpfs", "", "/x", "size=1,2"}, {"overlay", "", "/x", ""}, {"overlay", "", "/x", "lowerdir=a"},
		{"overlay", "", "/x", "lowerdir=/a,upperdir=/u"}, {"overlay", "", "/x", "lowerdir=/a,upperdir=/u,workdir=/u/w"},
		{"overlay", "", "/x", "lowerdir=/a,redirect_dir=on"}, {"bind", "/a", "/b", "bind,"}, {"bind", "/a\x00", "/b", "bind"}, {"bind", "/a", "/b\x00", "bind"},
	} {
		m, err := ParseMount(tt.fstype, tt.source, tt.target, strings.Split(tt.options, ","))
		if tt.options == "" {
			m, err = ParseMount(tt.fstype, tt.source, tt.target, nil)
		}
		if err == nil || !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ParseMount(%q) = %+v, %v", tt, m, err)
		}
	}
}

// FuzzParseMount: what is accepted is valid, and accepted again.
func FuzzParseMount(f *testing.F) {
	f.Add("bind", "/a", "/b", "rbind,ro,rslave,idmap")
	f.Add("tmpfs", "", "/b", "size=64k,mode=1777")
	f.Add("overlay", "o", "/b", "lowerdir=/a:/b,upperdir=/u/u,workdir=/u/w")
	f.Fuzz(func(t *testing.T, fstype, source, target, options string) {
		m, err := ParseMount(fstype, source, target, split(options))
		if err != nil {
			return
		}
		if faults := m.faults(); len(faults) > 0 || !strings.HasPrefix(m.Target, "/") || strings.Contains(m.Target, "..") && strings.Contains(m.Target, "/../") {
			t.Errorf("%+v accepted: %v", m, faults)
		}
		if m.Size < 0 || m.Set&m.Clear != 0 {
			t.Errorf("%+v", m)
		}
	})
}

// FuzzMountinfo: any text is read without fault, and every mount point once.
func FuzzMountinfo(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, _ := parseMountinfo(strings.NewReader(s))
		seen := map[string]bool{}
		for _, e := range got {
			if seen[e.point] {
				t.Errorf("%q twice", e.point)
			}
			seen[e.point] = true
		}
	})
}
