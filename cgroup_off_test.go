package caisson

import (
	"errors"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
)

func TestWithoutCgroupRefusesLimits(t *testing.T) {
	command := WithCommand("/bin/true")
	for name, opt := range map[string]Option{
		"memory": WithMemory(64 << 20), "cpus": WithCPUs(0.5), "pids": WithPids(10),
		"resources": WithResources(cgroups.Resources{Pids: cgroups.PidsResources{Max: 5}}),
		"place":     WithCgroup(CgroupConfig{Parent: "/a"}),
	} {
		if _, err := New(command, opt, WithoutCgroup()); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if _, err := New(command, WithoutCgroup()); err != nil {
		t.Error(err)
	}
}
