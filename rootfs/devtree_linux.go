package rootfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// devTreeName is the file's name, and that of the input.
const devTreeName = "device tree"

// makeDevTree makes a tmpfs and what is in it, and never a name for it anywhere: it ends with the file.
func makeDevTree(c *DevConfig) (*os.File, error) {
	if !inInitialUserNamespace() {
		return nil, &Error{Op: "make device tree", Err: unix.EPERM, Remedy: "nodes that are made in a user namespace cannot be opened"}
	}
	fd, err := mountTmpfs(&c.Mount)
	if err != nil {
		return nil, &Error{Op: "make device tree", Object: "tmpfs", Err: err, Remedy: "it needs CAP_SYS_ADMIN and Linux 5.2"}
	}
	f := os.NewFile(uintptr(fd), devTreeName)
	for _, d := range c.Devices {
		if err := makeNode(fd, &d); err != nil {
			f.Close()
			return nil, &Error{Op: "make device", Object: d.Path, Err: err, Remedy: "it needs CAP_MKNOD"}
		}
	}
	for _, l := range c.Links {
		name, err := makeParents(fd, l.Path)
		if err == nil {
			err = unix.Symlinkat(l.Target, fd, name)
		}
		if err != nil {
			f.Close()
			return nil, &Error{Op: "make link", Object: l.Path, Err: err}
		}
	}
	return f, nil
}

func mountTmpfs(m *Mount) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	options := withLabel(m.tmpfsOptions(), m.Label)
	if m.Source != "" {
		options = append(options, [2]string{"source", m.Source})
	}
	for _, o := range options {
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fs, o[0])
		} else {
			err = unix.FsconfigSetString(fs, o[0], o[1])
		}
		if err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(m.Set.attrs()))
}

// makeNode makes a node whatever the program's file creation mask is.
func makeNode(dev int, d *Device) error {
	name, err := makeParents(dev, d.Path)
	if err != nil {
		return err
	}
	mode := d.bits()
	if err := unix.Mknodat(dev, name, d.kind()|mode, int(unix.Mkdev(d.Major, d.Minor))); err != nil {
		return err
	}
	if d.UID != 0 || d.GID != 0 {
		if err := unix.Fchownat(dev, name, int(d.UID), int(d.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return unix.Fchmodat(dev, name, mode, 0)
}

// kind is the file type of the node.
func (d *Device) kind() uint32 {
	switch {
	case d.FIFO:
		return unix.S_IFIFO
	case d.Char:
		return unix.S_IFCHR
	}
	return unix.S_IFBLK
}

// bits are the permission bits of the node.
func (d *Device) bits() uint32 {
	if mode := modeBits(d.Mode.Perm()); mode != 0 {
		return mode
	}
	return 0o666
}

// makeParents makes the directories on the way, and returns the path relative to /dev.
func makeParents(dev int, full string) (string, error) {
	name, parents := inDev(full)
	for _, dir := range parents {
		err := unix.Mkdirat(dev, dir, 0o755)
		if err == nil {
			err = unix.Fchmodat(dev, dir, 0o755, 0)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return "", err
		}
	}
	return name, nil
}
