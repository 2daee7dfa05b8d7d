package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/rootfs"
)

const good = `{"cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
 "containerEdits": {"env": ["ALL=1"], "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/opt/name", "options": ["ro", "nosuid", "bind"]}]},
 "devices": [
  {"name": "0", "containerEdits": {"env": ["GPU=0"], "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null"}], "additionalGids": [0, 44, 44]}},
  {"name": "one", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu1", "type": "b", "major": 8, "minor": 1, "fileMode": 384, "uid": 5, "permissions": "rw"}]}},
  {"name": "hooked", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/usr/bin/setup"}]}}]}`

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResolve(t *testing.T) {
	s, err := Load(write(t, map[string]string{"a.json": good, "b.yaml": "x", "readme": "y"}), filepath.Join(t.TempDir(), "missing"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"vendor.com/gpu=0", "vendor.com/gpu=hooked", "vendor.com/gpu=one"}; !slices.Equal(s.Devices(), want) {
		t.Errorf("devices %v", s.Devices())
	}
	r, err := s.Resolve("vendor.com/gpu=0", "vendor.com/gpu=one", "vendor.com/gpu=0")
	if err != nil {
		t.Fatal(err)
	}
	want := []rootfs.Device{{Path: "/dev/gpu0", HostPath: "/dev/null", Char: true, Major: 1, Minor: 3}, {Path: "/dev/gpu1", Major: 8, Minor: 1, Mode: 0o600, UID: 5}}
	if !slices.Equal(r.Devices, want) || !slices.Equal(r.Env, []string{"ALL=1", "GPU=0"}) || !slices.Equal(r.Groups, []uint32{44}) || len(r.Mounts) != 1 {
		t.Errorf("%+v", r)
	}
	if m := r.Mounts[0]; m.Type != rootfs.TypeBind || m.Target != "/opt/name" || m.Set != rootfs.ReadOnly|rootfs.NoSuid|rootfs.NoDev {
		t.Errorf("%+v", m)
	}
	for name, want := range map[string]error{"vendor.com/gpu=hooked": ErrUnsupported, "vendor.com/gpu=2": ErrUnresolved, "gpu": ErrInvalid, "vendor.com/gpu=../x": ErrInvalid} {
		if _, err := s.Resolve(name); !errors.Is(err, want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := s.Resolve("vendor.com/gpu=2"); err == nil || !strings.Contains(err.Error(), "b.yaml") {
		t.Errorf("the file that could not be read is not named: %v", err)
	}
}

func TestRank(t *testing.T) {
	low := write(t, map[string]string{"a.json": good, "b.json": strings.ReplaceAll(good, `"one"`, `"two"`)})
	high := write(t, map[string]string{"a.json": strings.ReplaceAll(good, "GPU=0", "GPU=high")})
	s, err := Load(low)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve("vendor.com/gpu=0"); !errors.Is(err, ErrUnresolved) || !strings.Contains(err.Error(), "both") {
		t.Errorf("got %v", err)
	}
	if s, err = Load(low, high); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve("vendor.com/gpu=0")
	if err != nil || !slices.Contains(r.Env, "GPU=high") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBad(t *testing.T) {
	for _, bad := range []string{"", "{}", good + "x", strings.Replace(good, "0.6.0", "9.0", 1), strings.Replace(good, "vendor.com/gpu", "gpu", 1), strings.Replace(good, `"kind"`, `"king"`, 1),
		strings.Replace(good, `"one"`, `"0"`, 1), strings.Replace(good, `"one"`, `"/"`, 1), strings.Repeat(" ", maxSpec+1)} {
		if _, err := Parse(strings.NewReader(bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.80q: got %v", bad, err)
		}
	}
	for old, c := range map[string]struct {
		with string
		want error
	}{
		`"/dev/gpu0"`: {`"/etc/x"`, ErrInvalid}, `"/dev/null"`: {`"/etc"`, ErrInvalid}, `"bind"]`: {`"shared"]`, ErrUnsupported}, `"GPU=0"`: {`"GPU"`, ErrInvalid},
		`"/opt/name"`: {`"/opt/../name"`, ErrInvalid}, `"additionalGids"`: {`"intelRdt": {}, "additionalGids"`, ErrUnsupported},
	} {
		s, err := Load(write(t, map[string]string{"a.json": strings.Replace(good, old, c.with, 1)}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resolve("vendor.com/gpu=0"); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v", c.with, err)
		}
	}
}

// goodYAML is as the generators of vendors write descriptions.
const goodYAML = `---
cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits:
  env: [ALL=1]
  hooks:
  - hookName: createContainer
    path: /usr/bin/setup
    args: [setup, create-symlinks]
    env: [A=b]
    timeout: 5
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/null, fileMode: 0600}
    hooks:
    - {hookName: poststop, path: /usr/bin/clean}
`

func TestYAML(t *testing.T) {
	s, err := Load(write(t, map[string]string{"a.yaml": goodYAML, "b.yml": strings.ReplaceAll(goodYAML, "vendor.com/gpu", "vendor.com/nic")}))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"vendor.com/gpu=0", "vendor.com/nic=0"}; !slices.Equal(s.Devices(), want) {
		t.Fatal(s.Devices(), s.faults)
	}
	r, err := s.ResolveWithHooks([]string{"/usr/bin/setup", "/usr/bin/clean"}, "vendor.com/gpu=0")
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Devices; len(d) != 1 || d[0].Mode != 0o600 || d[0].Minor != 3 || !slices.Equal(r.Env, []string{"ALL=1"}) {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{"", "a", "\t", goodYAML + "kind: x/y\n", strings.Replace(goodYAML, "kind", "king", 1), strings.Replace(goodYAML, "0.6.0", "9", 1), strings.Repeat(" ", maxSpec+1),
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n" +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n"} {
		if _, err := ParseYAML(strings.NewReader(bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.80q: got %v", bad, err)
		}
	}
}

// Programs of hooks are run where the caller names them all, and no others.
func TestHooks(t *testing.T) {
	s, err := Load(write(t, map[string]string{"a.yaml": goodYAML}))
	if err != nil {
		t.Fatal(err)
	}
	for _, allowed := range [][]string{nil, {"/usr/bin/setup"}, {"setup", "clean"}} {
		if _, err := s.ResolveWithHooks(allowed, "vendor.com/gpu=0"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "/usr/bin/clean") {
			t.Errorf("%v: %v", allowed, err)
		}
	}
	r, err := s.ResolveWithHooks([]string{"/usr/bin/setup", "/usr/bin/clean"}, "vendor.com/gpu=0")
	if err != nil {
		t.Fatal(err)
	}
	five := 5
	want := &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/usr/bin/setup", Args: []string{"setup", "create-symlinks"}, Env: []string{"A=b"}, Timeout: &five}},
		Poststop: []specs.Hook{{Path: "/usr/bin/clean"}}}
	if !reflect.DeepEqual(r.Hooks, want) {
		t.Errorf("%+v", r.Hooks)
	}
	for _, h := range []Hook{{Name: "prestart"}, {Name: "x", Path: "/a"}, {Name: "", Path: "/a"}, {Name: "poststart", Path: "a"}, {Name: "poststart", Path: "/a/../a"}, {Name: "startContainer", Path: "/a", Env: []string{"A"}},
		{Name: "createRuntime", Path: "/a", Args: []string{"\x00"}}, {Name: "createRuntime", Path: "/a", Timeout: new(int)}} {
		if err := (&Result{allowed: []string{"/a", "a", "", "/a/../a"}}).hook(&h); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add(goodYAML)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseYAML(strings.NewReader(text))
		if err != nil {
			return
		}
		r := new(Result)
		for i := range s.Devices {
			if _, _, err := ParseName(s.Kind + "=" + s.Devices[i].Name); err != nil {
				t.Errorf("a device without a name: %v", err)
			}
			if r.add("x", &s.Devices[i].Edits) == nil && len(s.Devices[i].Edits.Hooks) > 0 {
				t.Error("hooks were left out")
			}
		}
	})
}
