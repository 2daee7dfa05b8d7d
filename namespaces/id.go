package namespaces

import "fmt"

// ID identifies a namespace as long as it exists: the device and inode number of its file. IDs are equal exactly when
// the namespaces are the same; a number may be used again after a namespace is gone.
type ID struct {
	Dev, Ino uint64
}

// String returns "DEV:INO"; the second number is the one that "ls -l /proc/PID/ns" and lsns(8) show.
func (i ID) String() string { return fmt.Sprintf("%d:%d", i.Dev, i.Ino) }

// IsZero reports whether i identifies nothing.
func (i ID) IsZero() bool { return i == ID{} }
