package cgroups

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestJoinFaults(t *testing.T) {
	u := func(c Controllers, reason, remedy string, err error) error {
		return &UnsupportedError{Controller: c, Mode: ModeV1, Reason: reason, Remedy: remedy, Err: err}
	}
	one := joinFaults([]error{u(Memory, noGroupIn+"/a", "be root", syscall.EACCES), nil, u(Pids, noGroupIn+"/b", "be root", syscall.EACCES),
		u(CPU, noGroupIn+"/b", "be root", syscall.EACCES)})
	want := "cgroups: controllers cpu,memory,pids not available (v1 layout): no group can be made in /a nor in /b: permission denied; be root"
	if one == nil || one.Error() != want || !errors.Is(one, syscall.EACCES) {
		t.Errorf("%v", one)
	}
	if two := joinFaults([]error{u(Memory, "x", "", nil), u(Pids, "y", "", nil), errors.New("z")}); strings.Count(two.Error(), "\n") != 2 {
		t.Errorf("%v", two)
	}
	if err := joinFaults([]error{nil, nil}); err != nil {
		t.Error(err)
	}
}
