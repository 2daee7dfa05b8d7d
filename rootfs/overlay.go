package rootfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// MaxLayers is how many layers an overlay can have; a limit of overlayfs.
const MaxLayers = 500

// OverlaySource is a stack of directories. Make it with [Overlay].
type OverlaySource struct {
	layers []string
	upper  Upper
}

// Overlay is the root filesystem made of directories laid over one another, the topmost first, as the layers
// of an image are. None of them is modified; changes go to a layer in memory that vanishes with the container,
// or to the place that Upper names. The directories follow the rules of overlayfs for whiteouts and opaque
// directories (Documentation/filesystems/overlayfs.rst), but for redirects and files without contents (redirect_dir, metacopy; Linux 4.19), which are
// neither made nor followed: such a file or directory cannot be opened (EPERM). At most [MaxLayers].
func Overlay(layers ...string) OverlaySource { return OverlaySource{layers: layers} }

// Upper keeps the changes in the directory dir on disk, in its subdirectories "upper" and "work", which are
// made where they are missing (dir itself is not). The filesystem must be one that overlayfs accepts as upper
// layer: not NFS, not FAT, not another overlay. The same dir can serve one container at a time.
func (o OverlaySource) Upper(dir string) OverlaySource { o.upper.Dir = dir; return o }

// Volatile omits syncs to the upper layer on disk; see the field of [Upper]. Linux 5.10.
func (o OverlaySource) Volatile() OverlaySource { o.upper.Volatile = true; return o }

// UpperSize limits a layer in memory, in bytes. Default: see [DefaultUpperSize].
func (o OverlaySource) UpperSize(bytes int64) OverlaySource { o.upper.Size = bytes; return o }

// ReadOnly leaves out the upper layer: nothing can be changed.
func (o OverlaySource) ReadOnly() OverlaySource { o.upper = Upper{None: true}; return o }

// Describe implements [Source].
func (o OverlaySource) Describe(_ context.Context, env Env) (*Description, error) {
	d := &Description{Kind: KindOverlay}
	var faults []error
	if n := len(o.layers); n == 0 || n > MaxLayers {
		faults = append(faults, invalid("overlay", "", strconv.Itoa(n)+" layers; give 1 to "+strconv.Itoa(MaxLayers)))
	}
	for i, l := range o.layers {
		path, mode, err := directory(l)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if i == 0 {
			d.RootMode = mode
		}
		d.Layers = append(d.Layers, Layer{Path: path})
	}
	upper, err := o.upper.resolve(env)
	if err != nil {
		faults = append(faults, err)
	}
	d.Upper = upper
	if upper.Dir != "" && len(faults) == 0 {
		if d.Upper.Dir, err = prepareUpper(upper.Dir, d.RootMode, env); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return d, nil
}

// prepareUpper makes the two subdirectories of an upper layer on disk, owned by the container's root user.
func prepareUpper(dir string, mode uint32, env Env) (string, error) {
	dir, _, err := directory(dir)
	if err != nil {
		return "", err
	}
	for name, perm := range map[string]fs.FileMode{"upper": fs.FileMode(mode), "work": 0o700} {
		path := filepath.Join(dir, name)
		err := os.Mkdir(path, perm)
		switch {
		case errors.Is(err, fs.ErrExist):
			if fi, err := os.Lstat(path); err != nil || !fi.IsDir() {
				return "", &Error{Op: "use upper layer", Object: path, Err: errNotDirectory}
			}
			continue
		case err != nil:
			return "", &Error{Op: "make upper layer", Object: path, Err: underlying(err)}
		}
		if err := os.Chmod(path, perm); err != nil {
			return "", &Error{Op: "make upper layer", Object: path, Err: underlying(err)}
		}
		if env.UserNamespace && !env.Unprivileged && env.IDMap == nil {
			if err := os.Lchown(path, env.RootUID, env.RootGID); err != nil {
				return "", &Error{Op: "make upper layer", Object: path, Err: underlying(err)}
			}
		}
	}
	incompat := filepath.Join(dir, "work", "work", "incompat") // overlayfs makes the inner two in its work directory
	if _, err := os.Lstat(filepath.Join(incompat, "volatile")); err == nil {
		return "", &Error{Op: "use upper layer", Object: dir, Err: fs.ErrInvalid,
			Remedy: "it was mounted volatile before and may be incomplete; throw it away, or remove " + incompat + " to use it all the same"}
	}
	return dir, nil
}
