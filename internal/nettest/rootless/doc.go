// Package rootless holds the tests of what an ordinary user can do in network namespaces: those of package netns run as root of a user namespace.
package rootless
