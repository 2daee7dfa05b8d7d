package linux

// Actor does system calls on files in place of the calling process: one with other ids, in another user namespace.
// Directories and files are descriptors of the caller's; errors are bare errnos where the kernel refused.
type Actor interface {
	// Open is openat2(2).
	Open(dir int, path string, flags int, mode uint32, resolve uint64) (int, error)
	// Mkdir is mkdirat(2).
	Mkdir(dir int, name string, mode uint32) error
	// Symlink is symlinkat(2).
	Symlink(text string, dir int, name string) error
	// Rename is renameat(2) within one directory.
	Rename(dir int, from, to string) error
	// Unlink is unlinkat(2) of what is no directory.
	Unlink(dir int, name string) error
	// Chmod is fchmod(2).
	Chmod(fd int, mode uint32) error
	// SetTime is utimensat(2) that sets the modification time alone, of name in dir without following it, or of dir itself where
	// name is empty.
	SetTime(dir int, name string, sec, nsec int64) error
}
