package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Node is a file of any type. The same node under several names is a file with hard links.
type Node struct {
	Mode     uint32 // type and permissions, as inode(7) has them
	UID, GID uint32
	Sec      int64 // of the last modification
	Nsec     uint32
	Target   string            // of a symbolic link
	Major    uint32            // of a device, less than 1<<12
	Minor    uint32            // less than 1<<20
	Xattrs   map[string]string // names with their prefixes
	Children map[string]*Node  // of a directory

	size  int64
	block uint32 // of contents
	at    int64  // of the inode, from the beginning of all inodes; zero: it has none yet
	ino   uint32
	nlink uint32
	names []string // of a directory, sorted, "." and ".." too
}

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.Mode&typeMask == typeDir }

// IsLink reports whether n is a symbolic link.
func (n *Node) IsLink() bool { return n.Mode&typeMask == typeLink }

// IsWhiteout reports whether n is what overlayfs takes for a deleted file: a character device 0:0.
func (n *Node) IsWhiteout() bool { return n.Mode&typeMask == typeChar && n.Major == 0 && n.Minor == 0 }

// maxXattrName is how long the kernel lets the whole name of an extended attribute be, whatever of it is in the file; see xattr(7).
const maxXattrName = 255

// SetXattr sets an extended attribute. It refuses what the format has no room for.
func (n *Node) SetXattr(name, value string) error {
	index, rest := splitXattr(name)
	switch {
	case index == 0:
		return fmt.Errorf("extended attribute %.64q has no place in EROFS", name)
	case len(name) > maxXattrName || len(value) > 0xffff || n.xattrSize()+4+len(rest)+len(value)+3 > 60<<10:
		return errors.New("extended attributes are too long")
	}
	if n.Xattrs == nil {
		n.Xattrs = map[string]string{}
	}
	n.Xattrs[name] = value
	return nil
}

func splitXattr(name string) (byte, string) {
	for _, p := range prefixes {
		rest, ok := strings.CutPrefix(name, p.text)
		if ok && (rest != "") == strings.HasSuffix(p.text, ".") {
			return p.index, rest
		}
	}
	return 0, ""
}

// xattrSize is how much the attributes take beside the inode.
func (n *Node) xattrSize() int {
	if len(n.Xattrs) == 0 {
		return 0
	}
	size := xattrHead
	for name, value := range n.Xattrs {
		_, rest := splitXattr(name)
		size += (4 + len(rest) + len(value) + 3) &^ 3
	}
	return size
}

// inline says that a link's target is beside the inode.
func (n *Node) inline() bool { return n.IsLink() && len(n.Target) <= maxTarget }

// metaSize is what the inode takes with what is beside it.
func (n *Node) metaSize() int64 {
	size := int64(inodeSize + n.xattrSize())
	if n.inline() {
		size += int64(len(n.Target))
	}
	return size
}

// place finds the first place from at on for the inode. What is beside it must not go from one block to the next.
func (n *Node) place(at int64) int64 {
	at = (at + slotSize - 1) &^ (slotSize - 1)
	for n.inline() {
		tail := at + int64(inodeSize+n.xattrSize())
		if tail%blockSize+int64(len(n.Target)) <= blockSize {
			break
		}
		at += slotSize
	}
	return at
}

// encode appends the inode, with what is beside it.
func (n *Node) encode(b []byte) []byte {
	layout := layoutPlain
	size := n.size
	switch {
	case n.inline():
		layout, size = layoutInline, int64(len(n.Target))
	case n.IsLink():
		size = int64(len(n.Target))
	}
	le := binary.LittleEndian
	b = le.AppendUint16(b, uint16(layout<<1|extended))
	icount := 0
	if s := n.xattrSize(); s > 0 {
		icount = (s-xattrHead)/4 + 1
	}
	b = le.AppendUint16(b, uint16(icount))
	b = le.AppendUint16(b, uint16(n.Mode))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(size))
	b = le.AppendUint32(b, n.place32())
	b = le.AppendUint32(b, n.ino)
	b = le.AppendUint32(b, n.UID)
	b = le.AppendUint32(b, n.GID)
	b = le.AppendUint64(b, uint64(n.Sec))
	b = le.AppendUint32(b, n.Nsec)
	b = le.AppendUint32(b, n.nlink)
	b = append(b, make([]byte, 16)...)
	b = n.encodeXattrs(b)
	if n.inline() {
		b = append(b, n.Target...)
	}
	return b
}

// place32 is where contents are, or the device's number as the kernel writes it in 32 bits.
func (n *Node) place32() uint32 {
	switch n.Mode & typeMask {
	case typeChar, typeBlock:
		return n.Minor&0xff | n.Major<<8 | n.Minor&^0xff<<12
	case typeRegular, typeDir:
		return n.block
	case typeLink:
		if !n.inline() {
			return n.block
		}
	}
	return 0
}

func (n *Node) encodeXattrs(b []byte) []byte {
	if len(n.Xattrs) == 0 {
		return b
	}
	b = append(b, make([]byte, xattrHead)...)
	names := make([]string, 0, len(n.Xattrs))
	for name := range n.Xattrs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		index, rest := splitXattr(name)
		value := n.Xattrs[name]
		b = append(b, byte(len(rest)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(b, rest...)
		b = append(b, value...)
		for (4+len(rest)+len(value))%4 != 0 {
			b = append(b, 0)
			rest += "\x00"
		}
	}
	return b
}
