package caisson

import (
	"errors"
	"fmt"
	"slices"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/rootfs"
)

// WithDeviceRules adds rules about which device nodes the container's processes may make and open, after the default
// ones, so that they count more: the last rule that matches decides.
//
// Default, for a container that can make device nodes (CAP_MKNOD, without a user namespace), where the cgroup can hold rules ([cgroups.Resources].Devices says where): those of
// [cgroups.DefaultDeviceRules] (the usual devices can be opened, others not; nodes can be made) and everything for the
// devices of [WithDevice]. What does not hold is listed by [Container.Isolation] as "device rules". In a user namespace
// no node that was made inside can be opened, and without CAP_MKNOD, as by default, none can be made: the default is none
// then.
//
// Rules that were asked for hold, in a user namespace too, or the start fails. A first rule of
// {Type: cgroups.AllDevices, …} with Allow set lifts the restriction, and without it takes the default rules back. The
// nodes that /dev is given can be made in any case. With WithResources and rules in it, those replace the default.
func WithDeviceRules(rules ...cgroups.DeviceRule) Option {
	return option(func(s *spec) { s.deviceRules = append(s.deviceRules, rules...) })
}

// defaultRules are those that hold when nothing was asked for.
func (s *spec) defaultRules() []cgroups.DeviceRule {
	switch {
	case s.bundle.deviceRules != nil:
		return s.bundle.deviceRules
	case s.process.resources.Devices != nil:
		return s.process.resources.Devices
	}
	rules := cgroups.DefaultDeviceRules()
	for _, d := range s.devices {
		if !d.FIFO {
			rules = append(rules, ruleFor(d))
		}
	}
	return rules
}

// askedRules are all rules, if any were asked for; otherwise nil. The nodes that the container's /dev has can always be
// made, or it could not start; whether they can be opened is for the rules to say.
func (s *spec) askedRules() []cgroups.DeviceRule {
	if len(s.deviceRules) == 0 && s.process.resources.Devices == nil && s.bundle.deviceRules == nil {
		return nil
	}
	rules := slices.Concat(s.defaultRules(), s.deviceRules)
	for _, d := range slices.Concat(rootfs.DefaultDevices(), s.devices) {
		if d.FIFO {
			continue
		}
		r := ruleFor(d)
		r.Access = cgroups.DeviceMknod
		rules = append(rules, r)
	}
	return rules
}

// mayMakeNodes reports whether the container has CAP_MKNOD. All its other file systems are nodev.
func (s *spec) mayMakeNodes() bool {
	set, err := s.process.capabilities(caps.Known)
	return err != nil || set.Has(caps.Mknod)
}

func ruleFor(d rootfs.Device) cgroups.DeviceRule {
	r := cgroups.DeviceRule{Allow: true, Type: cgroups.BlockDevice, Major: int64(d.Major), Minor: int64(d.Minor), Access: cgroups.DeviceAny}
	if d.Char {
		r.Type = cgroups.CharDevice
	}
	return r
}

func (s *spec) validateDeviceRules() error {
	if err := cgroups.CheckDeviceRules(s.deviceRules); err != nil {
		return &OptionError{"WithDeviceRules", err}
	}
	if len(s.deviceRules) > 0 {
		if err := cgroups.CheckDeviceRules(s.askedRules()); err != nil {
			return &OptionError{"WithDeviceRules", fmt.Errorf("together with the default rules and those of WithDevice: %w", err)}
		}
	}
	if s.cgroupOff && len(s.deviceRules) > 0 {
		return &OptionError{"WithDeviceRules", errors.New("rules need a cgroup; WithoutCgroup leaves it out")}
	}
	return nil
}
