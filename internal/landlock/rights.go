package landlock

import (
	"encoding/binary"
	"strings"
)

// Newest is the newest ABI this package knows.
const Newest = 6

// Kinds of access to files: LANDLOCK_ACCESS_FS_ of include/uapi/linux/landlock.h.
const (
	Execute uint64 = 1 << iota
	WriteFile
	ReadFile
	ReadDir
	RemoveDir
	RemoveFile
	MakeChar
	MakeDir
	MakeReg
	MakeSock
	MakeFifo
	MakeBlock
	MakeSym
	Refer    // ABI 2
	Truncate // ABI 3
	IoctlDev // ABI 5
)

// Kinds of access to TCP (ABI 4), and scopes (ABI 6).
const (
	BindTCP    uint64 = 1 << 0
	ConnectTCP uint64 = 1 << 1

	ScopeAbstractUnix uint64 = 1 << 0
	ScopeSignal       uint64 = 1 << 1
)

// OfFiles are the kinds that a rule about something other than a directory can allow.
const OfFiles = Execute | WriteFile | ReadFile | Truncate | IoctlDev

// Rights are kinds of access: those that a ruleset handles.
type Rights struct{ Files, Net, Scope uint64 }

// Handled returns all that an ABI can restrict; ABI 0 is a kernel without Landlock.
func Handled(abi int) Rights {
	var r Rights
	switch {
	case abi >= 5:
		r.Files = IoctlDev<<1 - 1
	case abi >= 3:
		r.Files = Truncate<<1 - 1
	case abi == 2:
		r.Files = Refer<<1 - 1
	case abi == 1:
		r.Files = MakeSym<<1 - 1
	}
	if abi >= 4 {
		r.Net = BindTCP | ConnectTCP
	}
	if abi >= 6 {
		r.Scope = ScopeAbstractUnix | ScopeSignal
	}
	return r
}

// And returns what both have.
func (r Rights) And(o Rights) Rights {
	return Rights{r.Files & o.Files, r.Net & o.Net, r.Scope & o.Scope}
}

// Needs returns the least ABI that has all of r.
func (r Rights) Needs() int {
	abi := 0
	for abi < Newest && r.And(Handled(abi)) != r {
		abi++
	}
	return abi
}

// Since returns the Linux release that brought an ABI.
func Since(abi int) string {
	return [Newest + 1]string{"", "5.13", "5.19", "6.2", "6.7", "6.10", "6.12"}[min(max(abi, 0), Newest)]
}

// Attr is struct landlock_ruleset_attr, no longer than needed: a kernel refuses fields it does not know unless they are
// left out or zero.
func (r Rights) Attr() []byte {
	b := binary.NativeEndian.AppendUint64(nil, r.Files)
	if r.Net != 0 || r.Scope != 0 {
		b = binary.NativeEndian.AppendUint64(b, r.Net)
	}
	if r.Scope != 0 {
		b = binary.NativeEndian.AppendUint64(b, r.Scope)
	}
	return b
}

// String shows the structure as strace does.
func (r Rights) String() string {
	s := "{handled_access_fs=" + FileNames(r.Files)
	if r.Net != 0 || r.Scope != 0 {
		s += ", handled_access_net=" + NetNames(r.Net)
	}
	if r.Scope != 0 {
		s += ", scoped=" + bitNames(r.Scope, "LANDLOCK_SCOPE_", scopeNames[:])
	}
	return s + "}"
}

var (
	fileNames = [...]string{"EXECUTE", "WRITE_FILE", "READ_FILE", "READ_DIR", "REMOVE_DIR", "REMOVE_FILE", "MAKE_CHAR", "MAKE_DIR", "MAKE_REG",
		"MAKE_SOCK", "MAKE_FIFO", "MAKE_BLOCK", "MAKE_SYM", "REFER", "TRUNCATE", "IOCTL_DEV"}
	netNames   = [...]string{"BIND_TCP", "CONNECT_TCP"}
	scopeNames = [...]string{"ABSTRACT_UNIX_SOCKET", "SIGNAL"}
)

// FileNames names kinds of access to files.
func FileNames(v uint64) string { return bitNames(v, "LANDLOCK_ACCESS_FS_", fileNames[:]) }

// NetNames names kinds of access to TCP.
func NetNames(v uint64) string { return bitNames(v, "LANDLOCK_ACCESS_NET_", netNames[:]) }

func bitNames(v uint64, prefix string, names []string) string {
	var out []string
	for i, n := range names {
		if v>>i&1 != 0 {
			out = append(out, prefix+n)
		}
	}
	if len(out) == 0 {
		return "0"
	}
	return strings.Join(out, "|")
}
