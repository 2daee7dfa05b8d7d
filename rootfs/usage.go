package rootfs

// Space tells how full a filesystem is.
type Space struct {
	Size, Free     int64 // bytes
	Inodes, Unused int64 // files that can exist, and can still be made; zero where the filesystem has no limit
}

// Full says that nothing more can be written: less than a page is left, or no file can be made.
func (s Space) Full() bool {
	return s.Size > 0 && s.Free < 4096 || s.Inodes > 0 && s.Unused == 0
}
