package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// What an image's volumes hold lies beside the store, in STORE.volumes, with a directory for each container that goes with it: "once-" and a random name for one that goes with this
// program, which has it locked as long, "kept-" and the id for a detached one. What neither a program nor a container has any more, because a program was killed, goes with the next run.
const (
	volumesOnce = "once-"
	volumesKept = "kept-"
)

// labelVolumes is the label of a detached container that says where the image's volumes are.
const labelVolumes = "run.volumes"

// volumes are what is done about the volumes of an image.
type volumes struct {
	mode string   // "anonymous", "tmpfs" or "ignore"
	dir  string   // what was made; "" for nothing
	lock *os.File // of the directory
}

func (v *volumes) set(mode string) error {
	if !slices.Contains([]string{"anonymous", "tmpfs", "ignore"}, mode) {
		return fmt.Errorf("%q is none of anonymous, tmpfs and ignore", mode)
	}
	v.mode = mode
	return nil
}

// useVolumes mounts a volume wherever the image wants one and the command line has nothing else.
func (c *config) useVolumes(ctx context.Context, store *image.Store, named []string) error {
	var wanted []string
	for _, v := range named {
		at := filepath.Clean("/" + v)
		if !slices.ContainsFunc(c.mounts, func(m rootfs.Mount) bool { return filepath.Clean(m.Target) == at }) {
			wanted = append(wanted, at)
		}
	}
	if len(wanted) == 0 || c.volumes.mode == "ignore" {
		return nil
	}
	var mounts []rootfs.Mount
	if c.volumes.mode == "tmpfs" {
		slices.Sort(wanted)
		for _, at := range slices.Compact(wanted) {
			mounts = append(mounts, rootfs.TmpfsMount(at, rootfs.DefaultUpperSize))
		}
	} else {
		if err := c.volumes.make(ctx, c.store+".volumes", c.id, c.detach); err != nil {
			return fmt.Errorf("-image-volumes: %w", err)
		}
		var err error
		if mounts, err = store.Volumes(ctx, c.found, c.volumes.dir, image.VolumeOptions{Paths: wanted}); err != nil {
			return errors.Join(err, c.volumes.remove())
		}
		if c.detach {
			c.more = append(c.more, caisson.WithLabels(map[string]string{labelVolumes: c.volumes.dir}))
		}
	}
	c.mounts = inOrder(mounts, c.mounts)
	return nil
}

// inOrder puts volumes before what the command line mounts, but for those below one of these, which they would be hidden by.
func inOrder(volumes, given []rootfs.Mount) []rootfs.Mount {
	var before, after []rootfs.Mount
	for _, v := range volumes {
		below := func(m rootfs.Mount) bool { return strings.HasPrefix(v.Target, filepath.Clean(m.Target)+"/") }
		if slices.ContainsFunc(given, below) {
			after = append(after, v)
		} else {
			before = append(before, v)
		}
	}
	return slices.Concat(before, given, after)
}

// make makes the container's directory, and removes what nobody has any more.
func (v *volumes) make(ctx context.Context, all, id string, kept bool) error {
	if err := os.MkdirAll(all, 0o700); err != nil {
		return err
	}
	alone, err := lockDir(all, true) // or another would find the new one unlocked
	if err != nil {
		return err
	}
	defer alone.Close()
	sweep(ctx, all)
	if kept {
		if filepath.Base(id) != id {
			return fmt.Errorf("%q is no name of a container", id)
		}
		v.dir = filepath.Join(all, volumesKept+id)
		if err = os.Mkdir(v.dir, 0o700); errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("a container %q has volumes already: %w", id, err)
		}
	} else {
		v.dir, err = os.MkdirTemp(all, volumesOnce)
	}
	if err != nil {
		v.dir = ""
		return err
	}
	if v.lock, err = lockDir(v.dir, true); err != nil {
		return errors.Join(err, v.remove())
	}
	return nil
}

// sweep removes the directories of programs and containers that are gone. What cannot be removed is no reason not to go on.
func sweep(ctx context.Context, all string) {
	entries, err := os.ReadDir(all)
	if err != nil || len(entries) == 0 {
		return
	}
	containers, err := caisson.List(ctx)
	if err != nil {
		return // it is not known which ones live
	}
	for _, e := range entries {
		id, kept := strings.CutPrefix(e.Name(), volumesKept)
		if kept && slices.ContainsFunc(containers, func(i caisson.Info) bool { return i.ID == id }) {
			continue
		}
		lock, err := lockDir(filepath.Join(all, e.Name()), false)
		if err != nil {
			continue // its program lives
		}
		_ = removeVolumes(filepath.Join(all, e.Name()))
		lock.Close()
	}
}

// remove removes the volumes, when no container has them any more.
func (v *volumes) remove() error {
	if v.dir == "" {
		return nil
	}
	err := removeVolumes(v.dir)
	if v.lock != nil {
		err = errors.Join(err, v.lock.Close())
	}
	v.dir, v.lock = "", nil
	return err
}

// removeVolumes removes a directory. What a container of an ordinary user's gave to other ids only root of a user namespace with these can remove.
func removeVolumes(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	if text, err := namespaces.Command("rm", "-rf", "--", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("remove %s: %w: %s", dir, err, strings.TrimSpace(string(text)))
	}
	return nil
}
