// Package netns makes network namespaces, and networks that connect them: to each other, to the host and to the world.
package netns
