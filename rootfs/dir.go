package rootfs

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// DirSource is a directory as root filesystem. Make it with [Dir].
type DirSource struct {
	path  string
	how   dirMode
	upper Upper
	plain bool
}

type dirMode int

const (
	dirThrowAway dirMode = iota
	dirReadOnly
	dirWritable
)

// Dir is the root filesystem that lies in the directory at path, such as one made by debootstrap or unpacked
// from an archive. By default the directory is never modified: changes go to a layer in memory that vanishes
// with the container (see [DirSource.UpperSize]). Mounts below path are not shown, except with ReadOnly and
// Writable.
//
// The mount is nodev: device nodes in the directory do not work.
func Dir(path string) DirSource { return DirSource{path: path} }

// ReadOnly shows the directory itself, read-only, with the mounts below it. The directories on which something
// is mounted (/proc, /sys, /dev and the targets of mounts) must exist in it.
func (d DirSource) ReadOnly() DirSource { d.how = dirReadOnly; return d }

// Writable shows the directory itself, with the mounts below it: what the container changes is changed on the
// host. Unless it is id-mapped the mount is nosuid as well as nodev. Note that a container whose root user is
// the host's root (no user namespace) can leave set-user-ID programs in the directory for users of the host
// to run; keep its parent directory closed to them.
func (d DirSource) Writable() DirSource { d.how = dirWritable; return d }

// Unmapped leaves the owners of files as they are on disk: in a user namespace, a file belongs to an id of the
// container only if the namespace maps its owner. By default the files of a privileged caller are id-mapped, so that
// what belongs to root on disk belongs to root inside. Runtimes that run OCI bundles do not map either.
func (d DirSource) Unmapped() DirSource { d.plain = true; return d }

// UpperSize limits the layer in memory that takes the changes, in bytes. Default: see [DefaultUpperSize].
// A write beyond it fails with ENOSPC; [Usage] tells that it was full.
func (d DirSource) UpperSize(bytes int64) DirSource { d.upper.Size = bytes; return d }

// Describe implements [Source].
func (d DirSource) Describe(_ context.Context, env Env) (*Description, error) {
	path, mode, err := directory(d.path)
	if err != nil {
		return nil, err
	}
	layer := Layer{Path: path}
	if d.how == dirThrowAway {
		upper, err := d.upper.resolve(env)
		if err != nil {
			return nil, err
		}
		return &Description{Kind: KindOverlay, Layers: []Layer{layer}, Upper: upper, RootMode: mode, Unmapped: d.plain}, nil
	}
	layer.Recursive = true
	return &Description{Kind: KindBind, Layers: []Layer{layer}, Writable: d.how == dirWritable, Unmapped: d.plain}, nil
}

// directory makes path absolute and requires it to be a directory. It returns its permission bits.
func directory(path string) (string, uint32, error) {
	if path == "" {
		return "", 0, &Error{Op: "open root filesystem", Err: fs.ErrNotExist, Remedy: "name a directory"}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", 0, &Error{Op: "open root filesystem", Object: path, Err: err}
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return "", 0, &Error{Op: "open root filesystem", Object: path, Err: underlying(err)}
	}
	if !fi.IsDir() {
		return "", 0, &Error{Op: "open root filesystem", Object: path, Err: errNotDirectory, Remedy: "an archive or image has to be unpacked first"}
	}
	return abs, uint32(fi.Mode().Perm()), nil
}

// resolve fills in defaults and refuses what cannot be.
func (u Upper) resolve(env Env) (Upper, error) {
	if u.Size < 0 || u.Size > 0 && u.Size < MinUpperSize {
		return u, &Error{Op: "size of the writable layer", Object: fmt.Sprint(u.Size), Err: fs.ErrInvalid,
			Remedy: fmt.Sprintf("give at least %d bytes", MinUpperSize)}
	}
	if u.Size == 0 && u.Dir == "" {
		u.Size = DefaultUpperSize
		if half := env.MemoryMax / 2; half > 0 && half < u.Size {
			u.Size = max(half, MinUpperSize)
		}
	}
	return u, nil
}

// MinUpperSize is the least size of a writable layer in memory: 64 KiB.
const MinUpperSize = 64 << 10
