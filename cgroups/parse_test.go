package cgroups

import (
	"encoding/json"
	"os"
	"path"
	"reflect"
	"strings"
	"testing"
	"time"
)

const hybridMounts = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpuacct,cpu
35 31 0:32 /docker/7 /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /tmp/all\040memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

func TestLayoutFrom(t *testing.T) {
	none := func(string) string { return "" }
	for _, c := range []struct {
		name, mounts, self string
		controllers        func(string) string
		mode               Mode
		dirs               map[string]string
	}{
		{"hybrid", hybridMounts, "4:memory:/docker/7/x\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/a:b\n", none, ModeHybrid,
			map[string]string{"unified": "/sys/fs/cgroup/unified/a:b", "cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
				"memory": "/sys/fs/cgroup/memory/x"}},
		{"second mount shows the own group", hybridMounts, "4:memory:/user\n0::/../..\n", none, ModeHybrid,
			map[string]string{"unified": "", "memory": "/tmp/all memory/user"}},
		{"v2", "33 23 0:29 / /sys/fs/cgroup rw shared:13 - cgroup2 cgroup2 rw,nsdelegate\n", "0::/user.slice\n",
			func(string) string { return "cpu memory\n" }, ModeV2, map[string]string{"unified": "/sys/fs/cgroup/user.slice"}},
		{"prefix is not parent", "3 2 0:2 /doc /m rw - cgroup2 cgroup2 rw\n", "0::/docker/1\n", none, ModeV2,
			map[string]string{"unified": ""}},
		{"v1", "3 2 0:2 / /m rw - cgroup cgroup rw,pids\n", "5:pids:/\n", none, ModeV1, map[string]string{"pids": "/m"}},
		{"nothing", "3 2 0:2 / /proc rw - proc proc rw\n", "0::/\n", none, ModeNone, map[string]string{}},
		{"no line in self", hybridMounts, "", none, ModeNone, map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := layoutFrom(c.mounts, c.self, c.controllers)
			got := map[string]string{}
			for i := range l.Hierarchies {
				got[l.Hierarchies[i].Name] = l.Hierarchies[i].Dir()
			}
			if l.Mode != c.mode || !reflect.DeepEqual(got, c.dirs) {
				t.Errorf("%v %v, want %v %v", l.Mode, got, c.mode, c.dirs)
			}
		})
	}
}

func FuzzLayout(f *testing.F) {
	f.Add(hybridMounts, "4:memory:/docker/7/x\n0::/a\n", "/x")
	f.Add("3 2 0:2 /doc /m rw - cgroup2 cgroup2 rw\n", "0::/../x\n", "/..")
	f.Add("3 2 0:2 /\\134\\0 /m\\040 rw - cgroup cgroup rw,cpu\n", "0:cpu:/x\n", "/")
	f.Fuzz(func(t *testing.T, mounts, self, group string) {
		l := layoutFrom(mounts, self, func(string) string { return self })
		for i := range l.Hierarchies {
			h := &l.Hierarchies[i]
			group = path.Clean("/" + group)
			for _, dir := range []string{h.Dir(), h.dirOf(group)} {
				if dir != "" && !strings.HasPrefix(dir, h.Mountpoint) {
					t.Errorf("%q is not below %q", dir, h.Mountpoint)
				}
			}
			if h.Version != 1 && h.Version != 2 || h.Controllers&^all != 0 {
				t.Errorf("%+v", h)
			}
		}
	})
}

func FuzzFlat(f *testing.F) {
	f.Add([]byte("usage_usec 88861442\nuser_usec 1\n"))
	f.Add([]byte("8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252\n"))
	f.Add([]byte("8:0 Read 4096\n8:0 Write 1\nTotal 4097\n"))
	f.Add([]byte("12\n13\n0\n"))
	f.Add([]byte("18446744073709551616 max"))
	f.Fuzz(func(t *testing.T, text []byte) {
		flatKeyed(text, func(k []byte, _ uint64) {
			if len(k) == 0 || strings.ContainsAny(string(k), " \n") {
				t.Errorf("key %q", k)
			}
		})
		for _, pid := range parsePids(text) {
			if pid < 0 {
				t.Error(pid)
			}
		}
		_ = ioTotals(text)
		_, _ = blkioTotals(text)
		if v := duration(single(text), time.Microsecond); v.ok && v.n < 0 {
			t.Error(v)
		}
	})
}

func TestTotals(t *testing.T) {
	s := ioTotals([]byte("8:0 rbytes=5 wbytes=7 rios=1 wios=2 dbytes=9 dios=9\n8:16 rbytes=10 wbytes=x rios=1\n"))
	if s.ReadBytes.n != 15 || s.WriteBytes.n != 7 || s.ReadOps.n != 2 || s.WriteOps.n != 2 {
		t.Errorf("%+v", s)
	}
	r, w := blkioTotals([]byte("8:0 Read 5\n8:0 Write 7\n8:0 Sync 1\n8:16 Read 1\nTotal 13\n"))
	if r.n != 6 || w.n != 7 || !r.ok || !w.ok {
		t.Errorf("%v %v", r, w)
	}
}

func TestParseUint(t *testing.T) {
	for text, want := range map[string]Value[uint64]{
		"0": ValueOf[uint64](0), "18446744073709551615": ValueOf[uint64](1<<64 - 1), "18446744073709551616": {},
		"99999999999999999999": {}, "": {}, "max": {}, "-1": {}, "1 2": {}, "12\n": ValueOf[uint64](12),
	} {
		if got := single([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestValueJSON(t *testing.T) {
	type both struct{ A, B Value[uint64] }
	in := both{A: ValueOf[uint64](0)}
	text, err := json.Marshal(in)
	if err != nil || string(text) != `{"A":0,"B":null}` {
		t.Fatalf("%s %v", text, err)
	}
	var out both
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Errorf("%+v %v", out, err)
	}
}

// TestOtherSystems keeps the methods of both halves the same, as far as text can tell.
func TestOtherSystems(t *testing.T) {
	text, err := os.ReadFile("cgroups_other.go")
	if err != nil {
		t.Skip("the sources are not here: ", err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[*Manager](), reflect.TypeFor[*Group]()} {
		for i := range typ.NumMethod() {
			decl := "func (*" + typ.Elem().Name() + ") " + typ.Method(i).Name + "("
			if !strings.Contains(string(text), decl) {
				t.Errorf("%s is missing", decl)
			}
		}
	}
}
