// Package nettest holds tests of containers with networks: package caisson and package netns know nothing of each other.
package nettest
