//go:build !linux

package main

import "runtime"

// machine says what is the matter: containers are a thing of Linux.
func machine() []Finding {
	return []Finding{{"machine", "kernel", Missing, runtime.GOOS, "Linux, for example in a virtual machine"}}
}
