package rootfs

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// fakeHost reads a listing "path type" with type d, f, or -> target.
func fakeHost(listing, mounts string, unprivileged bool) *hostView {
	v := &hostView{unprivileged: unprivileged}
	dirs := map[string][]hostEntry{}
	for line := range strings.Lines(strings.TrimSpace(listing)) {
		f := strings.Fields(line)
		i := strings.LastIndexByte(f[0], '/')
		e := hostEntry{name: f[0][i+1:], mode: 0o755}
		switch f[1] {
		case "d":
			e.mode |= fs.ModeDir
		case "->":
			e.mode, e.link = e.mode|fs.ModeSymlink, f[2]
		}
		dirs[max(f[0][:i], "/")] = append(dirs[max(f[0][:i], "/")], e)
	}
	v.list = func(dir string) ([]hostEntry, error) { return dirs[dir], nil }
	for line := range strings.Lines(strings.TrimSpace(mounts)) {
		f := strings.Fields(line)
		m := hostMount{mountEntry: mountEntry{point: f[0], fstype: f[1], source: "x"}, file: len(f) > 2 && f[2] == "file"}
		if len(f) > 2 && f[2] == "nested" {
			m.source = nestedOverlay
		}
		v.mounts = append(v.mounts, m)
	}
	return v
}

// show prints the plan without the directories that are always empty.
func (v *hostView) shown() string {
	var b strings.Builder
	for _, p := range v.parts[min(len(fresh), len(v.parts)):] {
		switch {
		case p.Link != "":
			fmt.Fprintf(&b, "%s -> %s\n", p.Target, p.Link)
		case p.Bind:
			fmt.Fprintf(&b, "%s bind recursive=%v\n", p.Target, p.Layer.Recursive)
		case p.Layer != nil:
			fmt.Fprintf(&b, "%s overlay %d\n", p.Target, p.depth)
		case p.cover:
			fmt.Fprintf(&b, "%s covered\n", p.Target)
		default:
			fmt.Fprintf(&b, "%s empty\n", p.Target)
		}
	}
	for _, n := range v.notes {
		fmt.Fprintf(&b, "# %s\n", n)
	}
	return b.String()
}

const merged = `
/bin -> usr/bin
/etc d
/etc/passwd f
/home d
/lib -> usr/lib
/lib64 -> usr/lib64
/opt d
/opt/app d
/opt/link -> app
/proc d
/usr d
/usr/bin d
/usr/local d
/var d
`

const lib = `/usr/lib d
/usr/lib/modules d
/usr/lib/os-release f
/usr/lib/x d
`

// What is composed holds nothing that has to be looked for.
func TestDescends(t *testing.T) {
	for _, tt := range []struct {
		extra string
		mode  fs.FileMode
		want  bool
	}{
		{"", 0, true}, {"closed", fs.ModeDir | 0o700, false}, {"mine", 0o600, false}, {"socket", fs.ModeSocket | 0o777, false},
		{"pipe", fs.ModeNamedPipe | 0o666, false}, {"read", 0o604, true},
	} {
		v := fakeHost(merged+lib, "/ ext4\n/usr/lib/modules 9p", true)
		list := v.list
		v.list = func(dir string) ([]hostEntry, error) {
			all, err := list(dir)
			if tt.extra != "" {
				all = append(all, hostEntry{name: tt.extra, mode: tt.mode})
			}
			return all, err
		}
		if got := v.descends("/usr/lib"); got != tt.want {
			t.Errorf("with %s: %v", tt.extra, got)
		}
	}
}

func TestPlanHost(t *testing.T) {
	links := "/bin -> usr/bin\n"
	for _, tt := range []struct {
		name, mounts string
		unprivileged bool
		want         string
	}{
		{"plain", "/ ext4\n/proc proc", false, links + "/etc overlay 1\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt overlay 1\n/usr overlay 1\n"},
		{"plain user", "/ ext4\n/proc proc", true, links + "/etc overlay 1\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt overlay 1\n/usr overlay 1\n"},
		{"in a container", "/ overlay\n/etc/passwd ext4 file", false,
			links + "/etc overlay 2\n/etc/passwd bind recursive=false\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt overlay 2\n/usr overlay 2\n"},
		{"in a container as user", "/ overlay\n/etc/passwd ext4 file", true,
			links + "/etc bind recursive=true\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt overlay 2\n/usr overlay 2\n" +
				"# /etc is read-only: other mounts lie below it.\n"},
		{"two deep", "/ overlay\n/usr overlay nested\n/usr/local ext4", false,
			links + "/etc overlay 2\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt overlay 2\n/usr bind recursive=true\n" +
				"# /usr is read-only: it is itself an overlay on an overlay, and the kernel stacks no more than two.\n"},
		{"submounts", "/ ext4\n/usr/local xfs\n/opt/app vfat\n/optical ext4", false,
			links + "/etc overlay 1\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt overlay 1\n/opt/app covered\n/usr overlay 1\n/usr/local overlay 1\n" +
				"# /opt/app is empty: a filesystem of type vfat cannot be shown under a writable layer.\n"},
		{"a mount beside a file", "/ ext4\n/usr/lib/modules 9p", true,
			links + "/etc overlay 1\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt overlay 1\n/usr empty\n/usr/bin overlay 1\n/usr/local overlay 1\n" +
				"/usr/lib empty\n/usr/lib/modules overlay 1\n/usr/lib/os-release bind recursive=false\n/usr/lib/x overlay 1\n" +
				"# /usr/lib/os-release is read-only: other mounts lie beside it.\n"},
		{"submounts as user", "/ ext4\n/usr/local xfs\n/opt/app vfat", true,
			links + "/etc overlay 1\n/lib -> usr/lib\n/lib64 -> usr/lib64\n/opt empty\n/opt/app covered\n/opt/link -> app\n" +
				"/usr empty\n/usr/bin overlay 1\n/usr/local overlay 1\n" +
				"# /opt/app is empty: a filesystem of type vfat cannot be shown under a writable layer.\n"},
	} {
		listing := merged
		if strings.Contains(tt.mounts, "/usr/lib/") {
			listing += lib
		}
		v := fakeHost(listing, tt.mounts, tt.unprivileged)
		if err := v.planHost(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := v.shown(); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

func TestPlanAll(t *testing.T) {
	v := fakeHost(merged+"/sys d\n/dev d\n/run d\n/tmp d\n/file f\n", "/ ext4\n/home xfs", true)
	if err := v.planAll(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range v.parts {
		got = append(got, p.Target)
	}
	want := "/run /tmp /bin /etc /home /lib /lib64 /opt /usr /var"
	if strings.Join(got, " ") != want || len(v.notes) != 1 {
		t.Errorf("%v, %v; want %s", got, v.notes, want)
	}
}

func TestParseMountinfo(t *testing.T) {
	got, err := parseMountinfo(strings.NewReader(`36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
short line
37 35 0:5 / /over rw - tmpfs tmpfs rw
38 37 0:6 / /over rw - xfs /dev/sdb rw
`))
	want := []mountEntry{{"/mnt 2", "ext3", "/dev/root", "rw,errors=continue"}, {"/over", "xfs", "/dev/sdb", "rw"}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v", got, err)
	}
}
