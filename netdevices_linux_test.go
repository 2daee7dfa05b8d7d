package caisson

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/netdev"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
)

// What cannot be moved is refused by New, and a device that is not there by name when the container is started.
func TestNetDevicesRefused(t *testing.T) {
	noLeaks(t)
	device := WithNetDevices(map[string]string{"caisson-none": "x0"})
	pod := newContainer(t, WithCommand("true"))
	for name, o := range map[string]Option{
		"a slash":               WithNetDevices(map[string]string{"a/b": ""}),
		"too long":              WithNetDevices(map[string]string{"a": "sixteen_bytes_16"}),
		"two templates":         WithNetDevices(map[string]string{"a": "%d%d"}),
		"one name twice":        WithNetDevices(map[string]string{"a": "c", "b": "c"}),
		"the host's network":    Options(device, WithNamespace(namespaces.Net, namespaces.Host())),
		"another container's":   Options(device, WithNamespacesOf(pod)),
		"started several times": Options(device, WithRestart(RestartPolicy{Mode: RestartAlways})),
	} {
		var oe *OptionError
		if _, err := New(WithCommand("true"), o); !errors.Is(err, ErrInvalid) || !errors.As(err, &oe) || oe.Option != "WithNetDevices" {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := newContainer(t, device, WithCommand("true"))
	if _, err := c.Start(testContext(t)); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "caisson-none") {
		t.Errorf("a device that is not there: %v", err)
	}
}

// onHost looks at a device in the host's network namespace.
func onHost(t *testing.T, name string) (*netdev.Device, error) {
	t.Helper()
	c, err := netdev.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Look(name)
}

// hostDevice makes a device with an address.
func hostDevice(t *testing.T, n int) string {
	t.Helper()
	testutil.NeedRoot(t)
	name := testutil.Veth(t, n)
	c, err := netdev.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := c.Look(name)
	if err != nil {
		t.Fatal(err)
	}
	address := []byte{8, 0, unix.IFA_LOCAL, 0, 192, 0, 2, 77}
	if err := c.Settle(d.Index, []netdev.Addr{{Family: unix.AF_INET, Prefix: 32, Attrs: address}}, false); err != nil {
		t.Fatal(err)
	}
	return name
}

// A device is in the container, up, with its address and under its new name, when the command runs.
func TestNetDevices(t *testing.T) {
	testutil.NeedRoot(t)
	inUser := WithNamespace(namespaces.User, namespaces.New())
	if err := newContainer(t, inUser, WithCommand("true")).Run(testContext(t)); err != nil { // the first one has things made that are kept
		t.Fatal(err)
	}
	noLeaks(t)
	for name, o := range map[string]Option{"plain": Options(), "user namespace": inUser, "template": WithNetDevices(map[string]string{})} {
		t.Run(name, func(t *testing.T) {
			device := hostDevice(t, 0)
			as := "in0"
			if name == "template" {
				as = "in%d"
			}
			c := newContainer(t, o, WithNetDevices(map[string]string{device: as}), WithCommand("sleep", "1000"))
			if _, err := c.Create(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if d, err := onHost(t, device); !errors.Is(err, unix.ENODEV) {
				t.Errorf("it is still here: %+v, %v", d, err)
			}
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if out, res := execs(t, c, "ip addr show in0"); !res.Success() || !strings.Contains(out, ",UP") || !strings.Contains(out, "192.0.2.77/32") {
				t.Errorf("%q, %v", out, res)
			}
		})
	}
}

// The device of a start that fails comes back as it was, from a namespace that is joined as well; a name that is in use there, and the
// host's own namespace, are refused before.
func TestNetDevicesComeBack(t *testing.T) {
	noLeaks(t)
	device, other := hostDevice(t, 0), hostDevice(t, 1)
	was, err := onHost(t, device)
	if err != nil {
		t.Fatal(err)
	}
	pod := newContainer(t, WithNetDevices(map[string]string{other: "in1"}), WithCommand("sleep", "1000"))
	p, err := pod.Start(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	joined := WithNamespace(namespaces.Net, namespaces.JoinPID(p.Pid()))
	for _, l := range []struct {
		name, as string
		options  Option
		want     error
	}{
		{"no command", "in0", WithCommand("/none"), ErrCommandNotFound},
		{"no command, joined", "in0", Options(joined, WithCommand("/none")), ErrCommandNotFound},
		{"name in use", "in1", Options(joined, WithCommand("true")), unix.EEXIST},
		{"name of the loopback device", "lo", WithCommand("true"), unix.EEXIST},
		{"the host's", "in0", Options(WithNamespace(namespaces.Net, namespaces.JoinPID(os.Getpid())), WithCommand("true")), ErrInvalid},
	} {
		c := newContainer(t, l.options, WithNetDevices(map[string]string{device: l.as}))
		if _, err := c.Start(testContext(t)); !errors.Is(err, l.want) {
			t.Errorf("%s: %v", l.name, err)
		}
		now, err := onHost(t, device)
		if err != nil || now.Name != was.Name || now.Up != was.Up || fmt.Sprint(now.Addrs) != fmt.Sprint(was.Addrs) {
			t.Errorf("%s: %+v, %v; it was %+v", l.name, now, err, was)
		}
	}
	c := newContainer(t, joined, WithNetDevices(map[string]string{device: "in0"}), WithCommand("true"))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if out, res := execs(t, pod, "ip link show in0"); !res.Success() || !strings.Contains(out, ",UP") {
		t.Errorf("in the namespace that was joined: %q, %v", out, res)
	}
}
