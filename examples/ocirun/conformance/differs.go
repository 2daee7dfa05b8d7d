package main

// differs says why ocirun does not meet a requirement, where that is on purpose. The key is section | name.
var differs = map[string]string{
	"runtime: delete | an error for a created container, which stays": "engines remove created containers so, as runc and crun let them",
	"config-linux: namespaces | mount: with a path it is joined":      "a container has a mount namespace of its own: its root filesystem could not be taken apart otherwise",
	"config-linux: pids | limit 0 is a limit":                         "engines from before version 1.3 write 0 where they mean no limit",
}

// lacks says what ocirun cannot do yet, all of it refused by name or left out by the specification's own rules.
var lacks = map[string]string{
	"config-linux: namespaces | time: without a path it is new":                 "a time namespace without offsets is the runtime's: it would change nothing",
	"config-linux: rootfs mount propagation | slave: mounts of the host appear": "mounts of the host below a root filesystem do not appear",
}
