// Package cdi reads device descriptions of the Container Device Interface (CDI) and resolves names such as
// "vendor.com/gpu=0" into what a container needs for the device: device nodes, mounts, environment and groups. Package
// caisson does not link it; a program that uses it hands the result on:
//
//	specs, err := cdi.Load()
//	...
//	e, err := specs.Resolve("vendor.com/gpu=0")
//	...
//	c, err := caisson.New(caisson.WithDevice(e.Devices...), caisson.WithMount(e.Mounts...), caisson.WithEnv(e.Env...), caisson.WithHooks(e.Hooks), ...)
//
// Descriptions are files in JSON or YAML. Hooks run programs of the host, so that a device that needs one is refused unless the caller
// names the program ([Specs.ResolveWithHooks]). What cannot be honoured (Intel RDT, network devices, unknown options) is refused by name and never left out.
//
// Source: SPEC.md of github.com/cncf-tags/container-device-interface, versions 0.3.0 to 1.1.0.
package cdi
