package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// mount does one --mount of a RUN.
func (s *stage) mount(ctx context.Context, st *step, r *running, m *instructions.Mount) error {
	target := m.Target
	if target != "" && !path.IsAbs(target) {
		target = path.Join("/", s.state.settings.WorkingDir, target)
	}
	if target == "" && m.Type != instructions.MountTypeSecret {
		return errors.New("target is missing")
	}
	target = path.Clean(target)
	if target == "/" && m.Type != instructions.MountTypeSecret {
		return errors.New("target is the root itself")
	}
	switch m.Type {
	case instructions.MountTypeBind:
		return s.mountBind(ctx, st, r, m, target)
	case instructions.MountTypeCache:
		return s.mountCache(ctx, st, r, m, target)
	case instructions.MountTypeTmpfs:
		r.known = append(r.known, fmt.Sprint("tmpfs ", target, m.SizeLimit))
		r.add(rootfs.TmpfsMount(target, m.SizeLimit))
		return nil
	case instructions.MountTypeSecret:
		return s.mountSecret(r, m)
	}
	return errors.New("this builder forwards no ssh agent; a key can be a secret")
}

func (r *running) add(m rootfs.Mount) {
	r.opts = append(r.opts, caisson.WithMount(m))
	r.stubs = append(r.stubs, clean(m.Target))
}

// mountBind shows files of the context, a stage or an image. Those of the context become an image first, by the rules of COPY, so that the
// command sees neither more than COPY would give it nor the owners of this machine.
func (s *stage) mountBind(ctx context.Context, st *step, r *running, m *instructions.Mount, target string) error {
	ref, id, at := "", "", clean(m.Source)
	var err error
	if m.From == "" {
		ref, id, at, err = s.contextImage(ctx, st, at)
	} else {
		ref, id, err = s.sourceImage(ctx, st, m.From)
	}
	if err != nil {
		return err
	}
	r.known = append(r.known, fmt.Sprint("bind ", target, " ", at, " ", m.ReadOnly, " ", id))
	r.late = append(r.late, func(ctx context.Context, _ tree) error {
		mount, err := s.bindOf(ctx, r, ref, at, target, m.ReadOnly)
		if err == nil {
			r.add(mount)
		}
		return err
	})
	return nil
}

// contextImage makes an image of a part of the context, and returns where in it that is.
func (s *stage) contextImage(ctx context.Context, st *step, at string) (ref, id, in string, err error) {
	src, err := collect(ctx, s.b.ctx, at, nil)
	if err != nil {
		return "", "", "", err
	}
	if !src.dir {
		in = path.Base(at)
	}
	sub := &stage{b: s.b, platform: s.platform}
	t := &transfer{sources: []source{*src}, dest: "/" + in}
	sum, err := t.digest(ctx)
	if err != nil {
		return "", "", "", err
	}
	quiet := &step{p: &progress{quiet: true}}
	err = sub.change(ctx, quiet, "context", []keyed{always(sub.cacheKey("context", sum))}, func(context.Context) (*pending, error) {
		l := newLayer(emptyTree{}, s.b.now(), s.b.epoch)
		if err := t.write(l); err != nil {
			return nil, err
		}
		return archived(l.write), nil
	})
	return sub.state.ref, strings.Join(sub.state.diffIDs, " "), in, err
}

// bindOf shows a path of an image. What is written goes with the container.
func (s *stage) bindOf(ctx context.Context, r *running, ref, at, target string, readOnly bool) (m rootfs.Mount, err error) {
	var places []string
	dir := true
	if ref != "" {
		t, closeTree, err := s.b.treeOf(ctx, ref, s.platform)
		if err != nil {
			return m, err
		}
		defer closeTree()
		real, err := resolve(t, at, true)
		if err != nil {
			return m, err
		}
		n, err := t.lstat(real)
		if err != nil {
			return m, fmt.Errorf("/%s: %w", at, cause(err))
		}
		if dir = n.mode.IsDir(); !dir && !n.mode.IsRegular() {
			return m, fmt.Errorf("/%s is neither a file nor a directory", at)
		}
		if places, err = t.(*layersTree).places(real); err != nil {
			return m, err
		}
	} else if at != "" {
		return m, fmt.Errorf("/%s: %w", at, os.ErrNotExist)
	}
	switch {
	case len(places) == 0:
		return rootfs.TmpfsMount(target, 0), nil
	case readOnly && (!dir || len(places) == 1):
		return rootfs.ReadOnlyBindMount(places[0], target), nil
	case readOnly:
		return rootfs.OverlayMount(target, "", "", places...), nil
	}
	return s.writableBind(r, places, dir, target)
}

func (s *stage) writableBind(r *running, places []string, dir bool, target string) (m rootfs.Mount, err error) {
	tmp, err := s.b.tempDir("bind")
	if err != nil {
		return m, err
	}
	r.undo = append(r.undo, func() error { return s.b.remove(tmp) })
	if !dir {
		data, err := os.ReadFile(places[0])
		if err == nil {
			err = os.WriteFile(filepath.Join(tmp, "file"), data, 0o644)
		}
		return rootfs.BindMount(filepath.Join(tmp, "file"), target), err
	}
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return m, err
		}
	}
	return rootfs.OverlayMount(target, filepath.Join(tmp, "upper"), filepath.Join(tmp, "work"), places...), nil
}

// maxPrivate bounds how many builds at once have a private cache of one name.
const maxPrivate = 1000

// mountCache shows a directory that outlives the build.
func (s *stage) mountCache(ctx context.Context, st *step, r *running, m *instructions.Mount, target string) error {
	id := m.CacheID
	if id == "" {
		id = target
	}
	r.known = append(r.known, fmt.Sprint("cache ", target, " ", id, " ", m.ReadOnly, " ", m.From, " ", m.Source))
	sum := sha256.Sum256([]byte(id))
	name := hex.EncodeToString(sum[:16])
	mode, own := os.FileMode(0o755), owner{}
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	if m.UID != nil {
		own.uid = int(*m.UID)
	}
	if m.GID != nil {
		own.gid = int(*m.GID)
	}
	r.late = append(r.late, func(ctx context.Context, _ tree) error {
		data, err := s.takeCache(ctx, st, r, m, name, mode, own)
		if err != nil {
			return err
		}
		bind := rootfs.BindMount(data, target)
		if m.ReadOnly {
			bind = rootfs.ReadOnlyBindMount(data, target)
		}
		r.add(bind)
		return nil
	})
	return nil
}

// takeCache finds a directory that may be used now.
func (s *stage) takeCache(ctx context.Context, st *step, r *running, m *instructions.Mount, name string, mode os.FileMode, own owner) (string, error) {
	for i := range maxPrivate {
		dir := filepath.Join(s.b.work, "cache", fmt.Sprint(name, "-", i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		unlock, ok, err := lockCache(ctx, filepath.Join(dir, "lock"), m.CacheSharing)
		if err != nil {
			return "", err
		}
		if !ok {
			continue // private, and in use
		}
		r.undo = append(r.undo, unlock)
		data := filepath.Join(dir, "data")
		return data, s.fillCache(ctx, st, m, data, mode, own)
	}
	return "", fmt.Errorf("%d builds use a private cache of this name", maxPrivate)
}

// fillCache makes the directory, with what from= names in it.
func (s *stage) fillCache(ctx context.Context, st *step, m *instructions.Mount, data string, mode os.FileMode, own owner) error {
	if err := os.Mkdir(data, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	err := func() error {
		if m.From != "" {
			if err := s.extractInto(ctx, st, m, data); err != nil {
				return err
			}
		}
		if own != (owner{}) {
			if err := os.Chown(data, own.uid, own.gid); err != nil {
				return fmt.Errorf("%w: an ordinary user gives no files away; leave uid and gid out", err)
			}
		}
		return os.Chmod(data, mode)
	}()
	if err != nil {
		err = errors.Join(err, os.RemoveAll(data))
	}
	return err
}

// extractInto copies a directory of a stage or image into a new cache.
func (s *stage) extractInto(ctx context.Context, st *step, m *instructions.Mount, data string) error {
	ref, _, err := s.sourceImage(ctx, st, m.From)
	if err != nil {
		return err
	}
	t, closeTree, err := s.b.treeOf(ctx, ref, s.platform)
	if err != nil {
		return err
	}
	defer closeTree()
	src, err := collect(ctx, t, clean(m.Source), nil)
	if err != nil {
		return err
	}
	if !src.dir {
		return fmt.Errorf("%q is no directory", m.Source)
	}
	sub := &stage{b: s.b, platform: s.platform}
	copied := &transfer{sources: []source{*src}, dest: "/"}
	sum, err := copied.digest(ctx)
	if err != nil {
		return err
	}
	quiet := &step{p: &progress{quiet: true}}
	err = sub.change(ctx, quiet, "cache", []keyed{always(sub.cacheKey("context", sum))}, func(context.Context) (*pending, error) {
		l := newLayer(emptyTree{}, s.b.now(), s.b.epoch)
		if err := copied.write(l); err != nil {
			return nil, err
		}
		return archived(l.write), nil
	})
	if err == nil {
		_, err = s.b.store.Extract(ctx, sub.state.ref, data, image.UnpackOptions{Platform: &s.platform})
	}
	return err
}

// mountSecret shows a file that is in no layer, in no image and not in the cache, or sets a variable for this command alone.
func (s *stage) mountSecret(r *running, m *instructions.Mount) error {
	id, target := m.CacheID, m.Target
	if m.Source != "" {
		id = m.Source
	}
	if id == "" {
		id = path.Base(target)
	}
	r.known = append(r.known, fmt.Sprint("secret ", id, " ", target, " ", m.Env != nil))
	get, ok := s.b.opts.secrets[id]
	if !ok {
		if m.Required {
			return fmt.Errorf("the secret %q is required: give it by -secret id=%s,src=FILE", id, id)
		}
		return nil
	}
	r.late = append(r.late, func(_ context.Context, below tree) error {
		data, err := get()
		if err != nil {
			return fmt.Errorf("secret %q: %w", id, err)
		}
		if m.Env != nil {
			name := *m.Env
			if name == "" {
				name = id
			}
			r.opts = append(r.opts, caisson.WithEnv(name+"="+string(data)))
			if target == "" {
				return nil
			}
		}
		at := target
		if at == "" {
			at = "/run/secrets/" + path.Base(id)
		}
		if !path.IsAbs(at) {
			at = path.Join("/", s.state.settings.WorkingDir, at)
		}
		return s.secretFile(r, m, path.Clean(at), data, below)
	})
	return nil
}

// secretFile puts a file into the container that is in memory alone. A directory that the image lacks is a filesystem in memory itself;
// in others the file is one of a filesystem in memory of this machine's.
func (s *stage) secretFile(r *running, m *instructions.Mount, target string, data []byte, below tree) error {
	f := rootfs.File{Path: target, Data: data, Mode: 0o400}
	if m.Mode != nil {
		f.Mode = os.FileMode(*m.Mode & 0o777)
	}
	if m.UID != nil {
		f.UID = uint32(*m.UID)
	}
	if m.GID != nil {
		f.GID = uint32(*m.GID)
	}
	dir := path.Dir(target)
	if dir != "/" && !isDir(below, clean(dir)) {
		if r.secrets == nil {
			r.secrets = map[string]bool{}
		}
		if !r.secrets[dir] {
			r.secrets[dir] = true
			mount := rootfs.TmpfsMount(dir, 16<<20)
			mount.Mode = 0o755
			r.add(mount)
		}
		r.opts = append(r.opts, caisson.WithFiles(f))
		return nil
	}
	tmp, err := memoryDir()
	if err != nil {
		return err
	}
	r.undo = append(r.undo, func() error { return os.RemoveAll(tmp) })
	name := filepath.Join(tmp, "secret")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		return err
	}
	if f.UID != 0 || f.GID != 0 {
		if err := os.Chown(name, int(f.UID), int(f.GID)); err != nil {
			return fmt.Errorf("%w: an ordinary user gives no files away; leave uid and gid out, or choose a directory that the image lacks", err)
		}
	}
	if err := os.Chmod(name, f.Mode); err != nil {
		return err
	}
	r.add(rootfs.ReadOnlyBindMount(name, target))
	return nil
}

// memoryDir makes a directory for one secret that is on no disk.
func memoryDir() (string, error) {
	for _, d := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"} {
		if d == "" {
			continue
		}
		if tmp, err := os.MkdirTemp(d, "caisson-secret-"); err == nil {
			return tmp, nil
		}
	}
	return "", errors.New("there is no filesystem in memory for the secret: neither $XDG_RUNTIME_DIR nor /dev/shm; choose a target in a directory that the image lacks, such as /run/secrets")
}
