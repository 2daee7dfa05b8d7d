// Package cdi reads device descriptions of the Container Device Interface (CDI) and resolves names such as
// "vendor.com/gpu=0" into what a container needs for the device: device nodes, mounts, environment and groups. Package
// caisson does not link it; a program that uses it hands the result on:
//
//	specs, err := cdi.Load()
//	...
//	e, err := specs.Resolve("vendor.com/gpu=0")
//	...
//	c, err := caisson.New(caisson.WithDevice(e.Devices...), caisson.WithMount(e.Mounts...), caisson.WithEnv(e.Env...), ...)
//
// Descriptions are files in JSON; those in YAML are not read, and a name that is not found says so. What cannot be honoured (hooks,
// Intel RDT, network devices, unknown options) is refused by name and never left out.
//
// Source: SPEC.md of github.com/cncf-tags/container-device-interface, versions 0.3.0 to 1.1.0.
package cdi
