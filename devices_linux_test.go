package caisson

import (
	"errors"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// tryKmsg makes a node for the memory devices with a number that no default rule names (1:11, the kernel's log) and
// says what can be done with it.
const tryKmsg = `mknod /dev/log1 c 1 11 2>/dev/null && echo made || ln -s /nowhere/log /dev/log1
(exec 3</dev/log1) 2>/dev/null && echo read
(exec 3>/dev/log1) 2>/dev/null && echo written
(exec 3<>/dev/log1) 2>/dev/null && echo both
(exec 3<>/dev/null) && echo null
:`

func deviceOutput(t *testing.T, opts ...Option) string {
	t.Helper()
	return strings.Join(strings.Fields(output(t, append([]Option{sh(tryKmsg), WithAddedCapabilities("MKNOD", "SYSLOG")}, opts...)...)), " ")
}

func needDeviceRules(t *testing.T) {
	t.Helper()
	if !isRoot() {
		t.Skip("needs root")
	}
}

func TestDeviceRules(t *testing.T) {
	needDeviceRules(t)
	noLeaks(t)
	kmsg := cgroups.DeviceRule{Allow: true, Type: cgroups.CharDevice, Major: 1, Minor: 11, Access: cgroups.DeviceRead}
	all := cgroups.DeviceRule{Allow: true, Type: cgroups.AllDevices, Major: cgroups.AnyNumber, Minor: cgroups.AnyNumber, Access: cgroups.DeviceAny}
	none := all
	none.Allow = false
	null, making := kmsg, kmsg
	making.Access = cgroups.DeviceMknod
	null.Minor, null.Access = 3, cgroups.DeviceAny
	for _, c := range []struct {
		name string
		opts []Option
		want string
	}{
		{"default", nil, "made null"},
		{"read only", []Option{WithDeviceRules(kmsg)}, "made read null"},
		{"lifted", []Option{WithDeviceRules(all)}, "made read written both null"},
		{"without the default", []Option{WithDeviceRules(none, null)}, "null"},
		{"given device", []Option{WithDevice(rootfs.Device{Path: "/dev/log", Char: true, Major: 1, Minor: 11})}, "made read written both null"},
		{"resources", []Option{WithResources(cgroups.Resources{Devices: []cgroups.DeviceRule{null, kmsg}})}, "null"},
		{"both", []Option{WithResources(cgroups.Resources{Devices: []cgroups.DeviceRule{null}}), WithDeviceRules(making, kmsg)}, "made read null"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := deviceOutput(t, c.opts...); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestDeviceRulesAreReported(t *testing.T) {
	measure := func(opts ...Option) Measure {
		c := newContainer(t, append([]Option{WithCommand("/bin/true")}, opts...)...)
		if err := c.Run(testContext(t)); err != nil {
			t.Fatal(err)
		}
		m, _ := c.Isolation().Get("device rules")
		return m
	}
	if m := measure(WithNamespace(namespaces.User, namespaces.New())); m.Status == Applied || isRoot() && m.Status != Declined {
		t.Errorf("in a user namespace: %v", m)
	}
	noLeaks(t)
	if m := measure(WithAddedCapabilities("MKNOD")); isRoot() && m.Status != Applied {
		t.Errorf("%v", m)
	}
	if m := measure(); isRoot() && m.Status != Declined {
		t.Errorf("without CAP_MKNOD: %v", m)
	}
	err := newContainer(t, WithCommand("/bin/true"), WithDeviceRules(cgroups.DefaultDeviceRules()...)).Run(testContext(t))
	if isRoot() != (err == nil) || err != nil && !errors.Is(err, ErrUnsupported) {
		t.Errorf("asked for: %v", err)
	}
}

func TestDeviceRuleFaults(t *testing.T) {
	for name, opts := range map[string][]Option{
		"zero rule": {WithDeviceRules(cgroups.DeviceRule{})},
		"too many":  {WithDeviceRules(make([]cgroups.DeviceRule, 300)...)},
		"no cgroup": {WithoutCgroup(), WithDeviceRules(cgroups.DefaultDeviceRules()...)},
	} {
		_, err := New(append(opts, WithCommand("/bin/true"))...)
		if o := (*OptionError)(nil); !errors.As(err, &o) || o.Option != "WithDeviceRules" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
