package main

// differs says why ocirun does not meet a requirement, where that is on purpose. The key is section | name.
var differs = map[string]string{
	"runtime: delete | an error for a created container, which stays": "engines remove created containers so, as runc and crun let them",
	"config-linux: namespaces | mount: with a path it is joined":      "a container has a mount namespace of its own: its root filesystem could not be taken apart otherwise",
	"config-linux: pids | limit 0 is a limit":                         "engines from before version 1.3 write 0 where they mean no limit",
}

// lacks says what ocirun cannot do yet, all of it refused by name or left out by the specification's own rules.
var lacks = map[string]string{
	"config: linux mount options | remount":                                                    "options of the file system as a whole, and remount, are refused",
	"config-linux: namespaces | time: without a path it is new":                                "a time namespace without offsets is the runtime's: it would change nothing",
	"config-linux: network devices | a device is moved into the container, under its new name": "devices are moved by a network of the library, not by config.json",
	"config-linux: network devices | it is up":                                                 "devices are moved by a network of the library, not by config.json",
	"config-linux: network devices | its permanent global addresses are kept":                  "devices are moved by a network of the library, not by config.json",
	"config-linux: memory | disableOOMKiller":                                                  "limits that only v1 has are refused",
	"config-linux: seccomp | SCMP_ACT_NOTIFY: the state comes to the listener":                 "notifications are answered in the program that uses the library, not by a listener",
	"config-linux: seccomp | listener: the descriptor is seccompFd, sent with the state":       "notifications are answered in the program that uses the library, not by a listener",
	"config-linux: seccomp | listener: exactly one state, and the connection is closed":        "notifications are answered in the program that uses the library, not by a listener",
	"config-linux: seccomp | listenerMetadata is handed over":                                  "notifications are answered in the program that uses the library, not by a listener",
	"config-linux: seccomp | listener: pid and state are the container's":                      "notifications are answered in the program that uses the library, not by a listener",
	"config-linux: seccomp | flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV":                    "notifications are answered in the program that uses the library, not by a listener",
	"config-linux: rootfs mount propagation | slave: mounts of the host appear":                "mounts of the host below a root filesystem do not appear",
	"features | linux.seccomp.actions: each is known":                                          "notifications are answered in the program that uses the library, not by a listener",
}
