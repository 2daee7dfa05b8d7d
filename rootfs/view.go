package rootfs

import "os"

// View is a container's root filesystem for who reads all of it: to commit it to an image, to export it, to see what
// has changed. Package caisson makes it (Container.View); packages that read it take it as an argument.
type View struct {
	// Root is the root directory as the container sees it, with what is mounted in it. It can be read whole also where the
	// files of a container's users are closed to the caller.
	Root *Root
	// Upper is the directory that holds all that has changed, with the marks of overlayfs, where there is one that the caller
	// can read: with [OverlaySource.Upper], and without a user namespace. Otherwise nil.
	Upper *os.File
	// Origin is that of the [Description].
	Origin string
	// Stacked says that the root is an overlay: a file that was not changed is the one of a layer, with its change time.
	Stacked bool
	// EROFS is that of the [Description]: the change time of a file that was not changed is that of its contents.
	EROFS bool
	// Owner turns the owner of a file, as the caller sees it, into the one that the container sees; ids that do not exist
	// inside are an error. Nil: they are the same.
	Owner func(uid, gid uint32) (newUID, newGID uint32, err error)
	// IDMaps are the id maps of the container's user namespace, as [Env.IDMaps] has them; empty without one.
	IDMaps string
	// Release ends the view. It may be nil.
	Release func() error
}

// Close ends the view: the container goes on. Closing twice is harmless.
func (v *View) Close() error {
	if v == nil || v.Release == nil {
		return nil
	}
	release := v.Release
	v.Release = nil
	return release()
}
