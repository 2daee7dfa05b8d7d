// Package kills kills programs that connect containers to networks, at each of their system calls, and compares what the recovery leaves of the host's network with what
// was there before. Tests of package netns and of those beside it share it.
package kills
