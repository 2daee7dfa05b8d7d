package caisson

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fullSpec has an element in every list.
func fullSpec() *specs.Spec {
	n, mode, id := int64(1), os.FileMode(0o600), uint32(7)
	return &specs.Spec{
		Version: specs.Version, Hostname: "h", Domainname: "d", Root: &specs.Root{Path: "rootfs"}, Annotations: map[string]string{"a": "b"},
		Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"A=b"}, User: specs.User{AdditionalGids: []uint32{3}},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Hard: 9, Soft: 8}},
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}},
		Mounts: []specs.Mount{{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}}, {Destination: "/y", Type: "bind", Source: "/etc", Options: []string{"bind", "ro"}}},
		Hooks: &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true", Args: []string{"true"}, Env: []string{"A=b"}}}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.TimeNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.CgroupNamespace}},
			Sysctl: map[string]string{"kernel.shm_rmid_forced": "1"}, MaskedPaths: []string{"/proc/keys"}, ReadonlyPaths: []string{"/proc/sys"},
			Devices:     []specs.LinuxDevice{{Path: "/dev/z", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &id, GID: &id}},
			TimeOffsets: map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 5, Nanosecs: 6}},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &n, Minor: &n, Access: "r"}},
				HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1 << 21}}, Unified: map[string]string{"memory.high": "1048576"}},
			Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"reboot"}, Action: specs.ActErrno}}},
		},
	}
}

// change changes a value in each of its leaves in turn, makes what is missing on the way, and calls f each time.
func change(v reflect.Value, path string, f func(path string)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if path == "" && slices.Contains([]string{"solaris", "windows", "vm", "zos", "freebsd"}, name) {
				continue // of other systems: refused as a whole
			}
			change(v.Field(i), strings.TrimPrefix(path+"."+name, "."), f)
		}
		return
	case reflect.Pointer:
		old := v.Interface()
		next := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			next.Elem().Set(v.Elem())
		}
		v.Set(next)
		change(next.Elem(), path, f)
		v.Set(reflect.ValueOf(old))
		return
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			old := v.Interface()
			list := reflect.MakeSlice(v.Type(), max(v.Len(), 1), max(v.Len(), 1))
			reflect.Copy(list, v)
			v.Set(list)
			for i := range list.Len() {
				change(list.Index(i), fmt.Sprintf("%s[%d]", path, i), f)
			}
			v.Set(reflect.ValueOf(old))
			return
		}
	}
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Slice:
		e := reflect.New(v.Type().Elem()).Elem()
		if e.Kind() == reflect.String {
			e.SetString("x")
		}
		v.Set(reflect.Append(v.Slice3(0, v.Len(), v.Len()), e))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		for _, k := range v.MapKeys() {
			m.SetMapIndex(k, v.MapIndex(k))
		}
		m.SetMapIndex(reflect.ValueOf("x").Convert(v.Type().Key()), reflect.Zero(v.Type().Elem()))
		v.Set(m)
	default:
		panic(path + " is a " + v.Kind().String())
	}
	f(path)
	v.Set(old)
}

// Whatever field of a configuration is changed: either the container is another one, or the field is refused. None is left out.
func TestEveryFieldOfASpecCounts(t *testing.T) {
	read := func(s *specs.Spec) (*spec, error) {
		o, err := FromSpec(s, "/bundle")
		if err != nil {
			return nil, err
		}
		return newSpec([]Option{o, WithID("a")})
	}
	s := fullSpec()
	base, err := read(s)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := read(s); err != nil || !reflect.DeepEqual(base, again) {
		t.Fatal("the same configuration makes another container:", err)
	}
	n, same := 0, []string{}
	change(reflect.ValueOf(s).Elem(), "", func(path string) {
		n++
		if got, err := read(s); err == nil && reflect.DeepEqual(got, base) {
			same = append(same, path)
		}
	})
	if n < 150 {
		t.Errorf("only %d fields", n)
	}
	for _, path := range same {
		if meaningless[path] == "" {
			t.Errorf("%s is left out", path)
		}
	}
}

// meaningless are the changes that rightly make no other container, and why.
var meaningless = map[string]string{
	"ociVersion":                                     "a later version of the same kind",
	"process.consoleSize.height":                     "there is no terminal",
	"process.consoleSize.width":                      "there is no terminal",
	"process.capabilities.bounding":                  "an unknown capability is to be noted, not refused",
	"mounts[2].type":                                 "it is a bind mount by its options",
	"linux.resources.memory.useHierarchy":            "every hierarchy is one nowadays",
	"linux.resources.cpu.period":                     "there is no quota",
	"linux.resources.blockIO.weightDevice[0]..major": "a device without a weight",
	"linux.resources.blockIO.weightDevice[0]..minor": "a device without a weight",
}
