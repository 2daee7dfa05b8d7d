package image

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-go/caisson/rootfs"
)

// maxVolumes bounds how many directories an image has made.
const maxVolumes = 128

// VolumeOptions say which volumes an image gets, and from where. The zero value is the default.
type VolumeOptions struct {
	// Platform chooses from an index. Default: that of this machine.
	Platform *ocispec.Platform
	// Paths are absolute paths in the container, instead of those that the image's config names. Nil: those.
	Paths []string
	// EROFS reads layers that are files of EROFS, as [Source.EROFS] does, with the needs named there. Default: directories.
	EROFS bool
}

// Volumes makes a directory in dir for each volume of an image, with what the image has at that place, and returns the mounts that show them to
// a container, in the order in which they are to be made: what docker run calls anonymous volumes. Without volumes it makes nothing and returns nil.
//
//	mounts, err := store.Volumes(ctx, "postgres", dir, image.VolumeOptions{})
//	if err != nil { … }
//	c, err := caisson.New(caisson.WithRootfs(store.Rootfs("postgres")), caisson.WithMount(mounts...), …)
//
// dir exists and belongs to the caller, who removes it when the container is gone; what was made is removed again where Volumes fails. Names in it are numbers, and nothing of the
// image decides about them. A directory comes with all that is in it, owners, modes, attributes, links and times, by reflinks where the file system has these; one that the image does not
// have is empty and root's, with mode 0755. Symbolic links on the way are followed within the image, as the mount will follow them. Where something else than a directory stands there,
// and for paths such as "/", the error Is [ErrDocument]; all volumes together may take what [Limits] allows an image. Nothing is synced to disk.
//
// As root, files get the owners that they have in the image: for a container with a user namespace set [rootfs.Mount.IDMap] of the mounts. An ordinary user's belong to the caller, who is
// root in the container, also with [OwnersMapped]. Files that the image has closed to their owner are read as root of a user namespace; where there can be none, or such a file has
// attributes of users ("user."), that is an error. What the container then gives to subordinate ids may take these to be removed.
func (s *Store) Volumes(ctx context.Context, name, dir string, o VolumeOptions) ([]rootfs.Mount, error) {
	use, err := s.use(ctx)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	mounts, err := s.volumes(ctx, name, dir, o)
	return mounts, fail("make volumes", name, err)
}

func (s *Store) volumes(ctx context.Context, name, dir string, o VolumeOptions) ([]rootfs.Mount, error) {
	info, err := s.inspect(name, o.Platform)
	if err != nil {
		return nil, err
	}
	paths := o.Paths
	if paths == nil && info.Config != nil {
		paths = info.Config.Volumes
	}
	if paths, err = volumePaths(paths); err != nil || len(paths) == 0 {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	u, err := s.unpackInfo(ctx, info, UnpackOptions{EROFS: o.EROFS, plain: !s.maps.IsZero()})
	if err != nil {
		return nil, err
	}
	layers, _, release, err := s.mountBelow(u.below())
	if err != nil {
		return nil, err
	}
	if release == nil {
		release = func() error { return nil }
	}
	var mounts []rootfs.Mount
	closed := newClosedOpener(ctx)
	defer closed.close()
	b := &budget{limits: s.limits}
	for i, at := range paths {
		own := filepath.Join(dir, strconv.Itoa(i))
		if err = os.Mkdir(own, 0o700); err != nil {
			break
		}
		mounts = append(mounts, rootfs.BindMount(own, at))
		if err = fillVolume(ctx, own, layers, at, b, closed.opener()); err != nil {
			err = &Error{Op: "make volume", Object: name + ": " + at, Err: underlying(err)}
			break
		}
	}
	if err = errors.Join(err, release()); err == nil {
		return mounts, nil
	}
	for _, m := range mounts {
		err = errors.Join(err, removeTree(m.Source))
	}
	return nil, err
}

// volumePaths judges the paths of volumes and puts those that others are in before these. Docker takes relative ones to begin at the root.
func volumePaths(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		at := path.Clean("/" + p)
		long := slices.ContainsFunc(strings.Split(at, "/"), func(name string) bool { return len(name) > maxComponent })
		if at == "/" || long || len(at) >= maxPath || strings.ContainsRune(at, 0) {
			return nil, because(ErrDocument, "%q is no place for a volume", clip(p))
		}
		out = append(out, at)
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > maxVolumes {
		return nil, because(ErrDocument, "%d volumes; at most %d", len(out), maxVolumes)
	}
	return out, nil
}
