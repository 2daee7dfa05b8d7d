package cgroups

import (
	"errors"
	"strings"
	"testing"
)

// All faults of a pool's wish are told at once, by field.
func TestPoolFaults(t *testing.T) {
	_, err := NewPool(PoolConfig{Size: maxPool + 1, Name: "a/b", Resources: Resources{CPU: CPUResources{Weight: 20_000}},
		Config: Config{Systemd: &Scope{}, Late: true, Parent: "relative"}})
	if !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	for _, want := range []string{"Size", "Name", "CPU.Weight", "Config.Systemd", "Config.Late", "Parent"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if _, err := NewPool(PoolConfig{Size: 1, Name: strings.Repeat("x", 201)}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
