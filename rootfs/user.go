package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// User is a resolved user of a container: numbers only, as the kernel takes them.
type User struct {
	Name string // name in /etc/passwd; empty if the number is not listed there
	UID  uint32
	GID  uint32 // primary group

	// Groups are the supplementary groups, ascending, each once. The primary group is always among them: a
	// process that changes its primary group must not thereby lose a group that is meant to forbid it something.
	Groups []uint32

	Home  string // clean enough for $HOME: absolute and printable; "/" if passwd says nothing usable
	Shell string // as in passwd; may be empty
}

var (
	// ErrUnknownUser says that a user name is not in the root's /etc/passwd.
	ErrUnknownUser = errors.New("no such user in the root's /etc/passwd")

	// ErrUnknownGroup says that a group name is not in the root's /etc/group.
	ErrUnknownGroup = errors.New("no such group in the root's /etc/group")

	// ErrBadUser says that a user specification is malformed, or a number in it is not in 0..4294967294.
	ErrBadUser = errors.New("malformed user, want uid, uid:gid, name or name:group with numbers from 0 to 4294967294")
)

// UserError is a user specification that could not be resolved.
type UserError struct {
	Spec string
	Err  error // [ErrUnknownUser], [ErrUnknownGroup], [ErrBadUser], [ErrTooLarge], [ErrNotRegular] or a *PathError
}

// Error names the specification and the cause.
func (e *UserError) Error() string { return fmt.Sprintf("user %q: %v", clipText(e.Spec), e.Err) }

// Unwrap returns the cause.
func (e *UserError) Unwrap() error { return e.Err }

// maxUserDB bounds /etc/passwd and /etc/group, which belong to the container.
const maxUserDB = 10 << 20

// LookupUser resolves spec, which is "uid", "uid:gid", "name" or "name:group" (numbers and names mix), with
// /etc/passwd and /etc/group of the root.
//
// A part made of digits is a number and is never looked up as a name, so that a hostile passwd cannot rename
// 1000 to root; a number above 4294967294 is [ErrBadUser]. A number need not be listed. Without a group, the
// group is that of passwd, else 0, and the supplementary groups are those of /etc/group in which the name is a
// member; with a group, that one is all the process gets. As the OCI image specification has it.
//
// The files may be missing, which matters only to names. Other faults are errors, even for a number, because
// guessing wrong could drop a group: larger than 10 MiB ([ErrTooLarge]), not a regular file ([ErrNotRegular]),
// unreadable. Lines that make no sense are passed over. Nothing outside the root is read.
func LookupUser(root *Root, spec string) (User, error) {
	want, err := parseUserSpec(spec)
	if err != nil {
		return User{}, &UserError{spec, err}
	}
	passwd, err := openUserDB(root, "/etc/passwd")
	if err != nil {
		return User{}, &UserError{spec, err}
	}
	defer passwd.Close()
	group, err := openUserDB(root, "/etc/group")
	if err != nil {
		return User{}, &UserError{spec, err}
	}
	defer group.Close()
	u, err := want.resolve(passwd, group)
	if err != nil {
		return User{}, &UserError{spec, err}
	}
	return u, nil
}

// LookupGroups resolves group names and numbers by the rules of [LookupUser] with /etc/group of the root, for
// additional supplementary groups. The result is ascending, each group once. All faults come back at once.
func LookupGroups(root *Root, specs ...string) ([]uint32, error) {
	file, err := openUserDB(root, "/etc/group")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	listed := map[string]uint32{}
	err = eachGroup(file, func(g groupEntry) {
		if _, ok := listed[g.name]; !ok {
			listed[g.name] = g.gid
		}
	})
	if err != nil {
		return nil, err
	}
	var gids []uint32
	var faults []error
	for _, spec := range specs {
		id, err := parseIdent(spec)
		if err == nil && id.name != "" {
			var ok bool
			if id.num, ok = listed[id.name]; !ok {
				err = ErrUnknownGroup
			}
		}
		if err != nil {
			faults = append(faults, &UserError{spec, err})
		}
		gids = append(gids, id.num)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return tidyGroups(gids), nil
}

// openUserDB opens a database; one that is not there reads as empty.
func openUserDB(root *Root, path string) (io.ReadCloser, error) {
	f, err := root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = ErrNotRegular
	case info.Size() > maxUserDB:
		err = fmt.Errorf("%w of %d bytes", ErrTooLarge, maxUserDB)
	}
	if err != nil {
		f.Close()
		return nil, root.wrap("read", path, err)
	}
	return &userDBFile{f, root, path}, nil
}

// userDBFile names the file in read errors.
type userDBFile struct {
	*os.File
	root *Root
	path string
}

func (f *userDBFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil && err != io.EOF {
		err = f.root.wrap("read", f.path, err)
	}
	return n, err
}

func tidyGroups(gids []uint32) []uint32 {
	slices.Sort(gids)
	return slices.Compact(gids)
}
