package image

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"time"
)

// ErrChanged says that a file changed while it was read. Pause the container, or stop what writes to the tree.
var ErrChanged = errors.New("changed while it was read")

// packing says which tree becomes an archive, and how.
type packing struct {
	TreeOptions
	tree   Tree
	stack  bool   // the tree is the topmost of a stack, in which whiteouts and opaque directories hide what is beneath
	under  []Tree // what it is laid over then, the topmost first
	lower  []Tree // what the tree is compared with, the topmost first
	diff   bool   // only what differs from lower
	upper  bool   // the tree has the marks of an overlay's upper layer
	ctimes bool   // a file that has the same change time as the lower one is that file
	blobs  bool   // with ctimes: the lower layers of the tree are files of EROFS, where the change time is that of the contents
	mounts bool   // mount points are shown empty
	limits Limits
	policy Policy
}

// packer writes the archive.
type packer struct {
	packing
	ctx    context.Context
	tw     *tar.Writer
	budget *budget
	// links are the paths of files with several names, by device and inode.
	links     map[[2]uint64]string
	linkBytes int64
	// pending are the directories above that are the same as the lower ones, and are written only if something in them is: so
	// they keep owner, mode and time.
	pending []*tar.Header
	buf     []byte
}

// packBuffer is what an archive is written in.
const packBuffer = 256 << 10

// newPacker begins an archive; end completes it.
func newPacker(ctx context.Context, w io.Writer, o packing) (p *packer, end func() error) {
	buffered := bufio.NewWriterSize(w, packBuffer)
	p = &packer{packing: o, ctx: ctx, tw: tar.NewWriter(buffered), budget: &budget{limits: o.limits}, links: map[[2]uint64]string{}, buf: make([]byte, fileBuffer)}
	return p, func() error {
		if err := p.tw.Close(); err != nil {
			return err
		}
		return buffered.Flush()
	}
}

// check refuses names that an archive cannot have, or that would mean something else in it.
func (p *packer) check(path string) error {
	if err := p.ctx.Err(); err != nil {
		return context.Cause(p.ctx)
	}
	if err := p.budget.addEntry(); err != nil {
		return err
	}
	if _, base := splitPath(path); strings.HasPrefix(base, whiteoutPrefix) {
		return &Error{Op: "write layer", Entry: path, Err: because(ErrBadWhiteout, "a file has a name that marks deleted files in layers"),
			Remedy: "rename the file, or leave it out with TreeOptions.Skip"}
	}
	_, err := entryPath(path, p.limits.Depth, p.policy.AnyNames)
	return err
}

// header writes a header whose times are limited as the options say.
func (p *packer) header(h *tar.Header) error {
	pending := p.pending
	p.pending = nil
	for _, d := range pending {
		if err := p.budget.addEntry(); err != nil {
			return err
		}
		if err := p.header(d); err != nil {
			return err
		}
	}
	h.Format = tar.FormatPAX
	h.ModTime = clampTime(h.ModTime, p.Latest)
	if p.WholeSeconds {
		h.ModTime = h.ModTime.Truncate(time.Second)
	}
	return p.tw.WriteHeader(h)
}

func clampTime(t, latest time.Time) time.Time {
	if !latest.IsZero() && t.After(latest) {
		t = latest
	}
	return t.UTC()
}

// whiteout marks a name of the lower layers as deleted.
func (p *packer) whiteout(dir, name string) error {
	if err := p.budget.addEntry(); err != nil {
		return err
	}
	return p.marker(joinPath(dir, whiteoutPrefix+name))
}

// opaque marks a directory of which the lower layers show nothing.
func (p *packer) opaque(dir string) error { return p.marker(joinPath(dir, whiteoutOpaque)) }

func (p *packer) marker(path string) error {
	return p.header(&tar.Header{Name: path, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)})
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// xattrRecord is before the names of extended attributes in PAX records.
const xattrRecord = "SCHILY.xattr."

// keepsXattr says which extended attributes are for other machines too.
func keepsXattr(name string) bool {
	switch {
	case name == xattrCapability, name == "system.posix_acl_access", name == "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

const xattrCapability = "security.capability"

// inside turns the value of an attribute that holds ids into what it is with the ids of the archive.
func (p *packer) inside(name string, value []byte) ([]byte, error) {
	if p.Owner == nil {
		return value, nil
	}
	switch name {
	case xattrCapability:
		return plainCapability(value), nil
	case "system.posix_acl_access", "system.posix_acl_default":
		return p.insideACL(value)
	}
	return value, nil
}

// Revisions of vfs_cap_data (linux/capability.h).
const (
	capRevision2 = 0x02000000
	capRevision3 = 0x03000000
	capRevisions = 0xff000000
)

// plainCapability takes the root user of a namespace out of a file capability, as it has one that was set in a user namespace.
func plainCapability(v []byte) []byte {
	if len(v) != 24 || binary.LittleEndian.Uint32(v)&capRevisions != capRevision3 {
		return v
	}
	out := append([]byte{}, v[:20]...)
	binary.LittleEndian.PutUint32(out, binary.LittleEndian.Uint32(v)&^capRevisions|capRevision2)
	return out
}

// Tags of POSIX access lists that have an id (linux/posix_acl_xattr.h).
const (
	aclUser  = 0x02
	aclGroup = 0x08
)

func (p *packer) insideACL(v []byte) ([]byte, error) {
	if len(v) < 4 || (len(v)-4)%8 != 0 {
		return nil, because(ErrBadHeader, "access list of %d bytes", len(v))
	}
	out := append([]byte{}, v...)
	for e := out[4:]; len(e) > 0; e = e[8:] {
		id := binary.LittleEndian.Uint32(e[4:])
		var err error
		switch binary.LittleEndian.Uint16(e) {
		case aclUser:
			id, _, err = p.Owner(id, 0)
		case aclGroup:
			_, id, err = p.Owner(0, id)
		}
		if err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(e[4:], id)
	}
	return out, nil
}

// linked returns an earlier name of a file, or remembers this one.
func (p *packer) linked(dev, ino uint64, path string) (string, error) {
	key := [2]uint64{dev, ino}
	if first, ok := p.links[key]; ok {
		return first, nil
	}
	if p.linkBytes += int64(len(path)) + 64; p.linkBytes > p.limits.Memory/3*2 { // the rest is for buffers and encoders
		return "", &LimitError{Limit: "Memory", Max: p.limits.Memory, Need: p.linkBytes/2*3 + 3, What: "the table of hard links"}
	}
	p.links[key] = path
	return "", nil
}

// IDMap is a range of ids of a user namespace: one line of its map.
type IDMap struct {
	Inside, Outside, Size uint32
}

// MapOwners is a [TreeOptions] Owner that turns ids outside of a user namespace into those inside. Ids that are not mapped are an
// error.
func MapOwners(uids, gids []IDMap) func(uid, gid uint32) (uint32, uint32, error) {
	return func(uid, gid uint32) (uint32, uint32, error) {
		u, uok := toInside(uids, uid)
		g, gok := toInside(gids, gid)
		if !uok || !gok {
			return 0, 0, because(ErrBadHeader, "owner %d:%d is not mapped in the user namespace", uid, gid)
		}
		return u, g, nil
	}
}

func toInside(maps []IDMap, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.Outside && id-m.Outside < m.Size {
			return m.Inside + (id - m.Outside), true
		}
	}
	return 0, false
}

// packError names the entry.
func packError(path string, err error) error { return entryError("write layer", path, err) }

// entryError names the file with which op failed.
func entryError(op, path string, err error) error {
	if parts := joined(err); parts != nil {
		return joinedBy(parts, func(e error) error { return entryError(op, path, e) })
	}
	if _, is := err.(*Error); is || err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &Error{Op: op, Entry: path, Err: err}
}
