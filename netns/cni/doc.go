// Package cni connects containers by plugins of the Container Network Interface (CNI): the programs that Kubernetes, containerd and
// podman's older versions use, from a configuration list as they have it below /etc/cni/net.d. A program that does not import
// this package links nothing of it.
//
//	list, err := cni.ReadDir("/etc/cni/net.d", "")
//	...
//	n, err := cni.New(list, cni.Options{Ports: []netns.Port{{Container: 80, Host: 8080}}})
//	...
//	c, err := caisson.New(caisson.WithNetwork(n), ...)
//
// The plugins are executed as the specification says (versions 0.3.0 to 1.1.0): by environment, stdin and JSON. They
// have this program's privileges, so whoever can write to their directories or to the configuration is trusted like it.
//
// What they answer is kept in files of the same form as other runtimes', so that DEL works after a crash. It is
// recorded before ADD: after the program was killed, caisson.Recover with [Owner] runs DEL.
package cni
