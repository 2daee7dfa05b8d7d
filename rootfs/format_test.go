package rootfs

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestFormatMount(t *testing.T) {
	for _, m := range append(DefaultMounts(), BindMount("/a", "/b"), ReadOnlyBindMount("/a", "/b"), TmpfsMount("/t", 5), Mount{Type: TypeTmpfs, Target: "/l", Label: "a:b:c:s0:c1,c2"}, OverlayMount("/o", "/u/u", "/u/w", "/a", "/c"), Mount{Type: TypeRemount, Target: "/r", Set: NoExec, Clear: ReadOnly}) {
		checkFormat(t, m)
	}
}

// checkFormat writes a mount down and reads it again.
func checkFormat(t *testing.T, m Mount) {
	t.Helper()
	fstype, source, options, err := m.Format()
	if err != nil {
		t.Errorf("%+v: %v", m, err)
		return
	}
	got, err := ParseMount(fstype, source, m.Target, options)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v was written as %q and read as %+v, %v", m, options, got, err)
	}
}

func TestFormatRefusesOpenFiles(t *testing.T) {
	m := Mount{Type: TypeBind, Target: "/x", File: os.Stdin}
	if _, _, o, err := m.Format(); err == nil {
		t.Errorf("written as %q", o)
	}
}

func FuzzFormatMount(f *testing.F) {
	f.Add("bind", "/a", "/b", "rbind,rro,shared,noatime,ridmap")
	f.Add("tmpfs", "x", "/b", "mode=1777,size=5k,nr_inodes=2,uid=1,gid=2,ro,nosuid")
	f.Add("devpts", "x", "/dev/pts", "mode=0620,gid=5,newinstance,runbindable")
	f.Add("proc", "x", "/proc", "ro,hidepid=invisible,gid=7,subset=pid")
	f.Add("overlay", "x", "/b", "lowerdir=/a:/b,upperdir=/c/u,workdir=/c/w,volatile")
	f.Fuzz(func(t *testing.T, fstype, source, target, options string) {
		if m, err := ParseMount(fstype, source, target, strings.Split(options, ",")); err == nil {
			checkFormat(t, m)
		}
	})
}
