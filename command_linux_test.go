package caisson

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// A command whose path leads through a link of procfs, to the stage or to one of its descriptors, is refused.
func TestCommandBehindProcfsLink(t *testing.T) {
	dir := testutil.Busybox(t)
	for name, target := range map[string]string{"self": "/proc/self/exe", "fd": "/proc/self/fd/3", "below": "/proc/self/root/bin/true", "fine": "/bin/busybox"} {
		if err := os.Symlink(target, filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"self", "fd", "below", "fine"} {
		for _, command := range []string{name, "/bin/" + name} {
			c := newContainer(t, WithRootfs(rootfs.Dir(dir)), WithCommand(command, "true"))
			err := c.Run(testContext(t))
			if name == "fine" {
				if err = exitOnly(err); err != nil {
					t.Errorf("%s: %v", command, err)
				}
				continue
			}
			var step *StepError
			if !errors.Is(err, ErrCommandNotExecutable) || !errors.Is(err, unix.ELOOP) || !errors.As(err, &step) || step.Object != command {
				t.Errorf("%s: %v", command, err)
			}
		}
	}
}

// exitOnly passes over how a command ended.
func exitOnly(err error) error {
	if errors.As(err, new(*ExitError)) {
		return nil
	}
	return err
}

// Faults name the option that was used.
func TestFaultsNameTheOption(t *testing.T) {
	for option, o := range map[string]Option{
		"WithAddedCapabilities":   WithAddedCapabilities("CAP_NONE"),
		"WithDroppedCapabilities": WithDroppedCapabilities("CAP_NONE"),
		"WithCapabilities":        WithCapabilities("CAP_NONE"),
		"WithCPUs":                WithCPUs(0.00001),
		"WithMemory":              WithMemory(100),
		"WithPids":                WithPids(-5),
		"WithMount":               WithMount(rootfs.BindMount("/tmp", "relative")),
		"WithDevice":              WithDevice(rootfs.Device{Path: "/etc/passwd"}),
		"WithMaskedPaths":         WithMaskedPaths("relative"),
		"WithReadOnlyPaths":       WithReadOnlyPaths("relative"),
		"WithID":                  WithID("a b"),
	} {
		_, err := New(WithCommand("true"), o)
		faults := 0
		for _, e := range flatten(err) {
			var oe *OptionError
			if errors.As(e, &oe) {
				if faults++; oe.Option != option {
					t.Errorf("%s: %v", option, e)
				}
			}
		}
		if faults == 0 {
			t.Errorf("%s: %v", option, err)
		}
	}
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if e, ok := err.(*Error); ok {
		err = e.Err
	}
	j, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	if _, ok := err.(*OptionError); ok {
		return []error{err}
	}
	var all []error
	for _, e := range j.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
