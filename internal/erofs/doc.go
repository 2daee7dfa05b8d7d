// Package erofs writes and reads file systems of the kernel's EROFS in one file, uncompressed: what a layer of an image becomes that is
// mounted instead of being unpacked.
//
// The format is that of the kernel's Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h. Files that are written here have
// blocks of 4096 bytes, inodes of the extended kind (owners of 32 bits, times in nanoseconds), contents and directories in whole blocks in a
// row, targets of symbolic links and extended attributes beside their inodes: what Linux reads from 5.4 on.
//
//	block 0         the superblock, at byte 1024
//	blocks 1 to n   contents of files, as they came
//	then            inodes
//	then            directories
package erofs

import "errors"

// ErrFormat says that a file is not what this package writes, or is damaged.
var ErrFormat = errors.New("not a valid EROFS file")

const (
	blockBits = 12
	blockSize = 1 << blockBits
	superAt   = 1024
	superSize = 128
	magic     = 0xe0f5e1e2
	inodeSize = 64
	slotSize  = 32 // of which inode numbers count
	direntLen = 12
	xattrHead = 12

	compatChecksum = 1
	compatMtime    = 2

	layoutPlain  = 0
	layoutInline = 2
	extended     = 1

	maxName   = 255
	maxTarget = 3072 // of a symbolic link beside its inode; longer ones have a block
)

// Types of files in directories.
var dirTypes = map[uint32]byte{typeRegular: 1, typeDir: 2, typeChar: 3, typeBlock: 4, typeFIFO: 5, typeSocket: 6, typeLink: 7}

// The types of files in modes, as inode(7) has them.
const (
	typeMask    = 0o170000
	typeSocket  = 0o140000
	typeLink    = 0o120000
	typeRegular = 0o100000
	typeBlock   = 0o060000
	typeDir     = 0o040000
	typeChar    = 0o020000
	typeFIFO    = 0o010000
)

// prefixes of extended attributes, by their numbers.
var prefixes = []struct {
	index byte
	text  string
}{{1, "user."}, {2, "system.posix_acl_access"}, {3, "system.posix_acl_default"}, {4, "trusted."}, {6, "security."}}
