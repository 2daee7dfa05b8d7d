package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A container gets a /dev that was made before, with what it has beyond that.
func TestDevTree(t *testing.T) {
	dir := makeTestRoot(t)
	pipe := Device{Path: "/dev/in/pipe", FIFO: true, Mode: 0o640}
	thread(t, func() error {
		tree, err := NewDevTree(DevConfig{})
		if err != nil {
			return err
		}
		defer tree.Close()
		d, err := rootDir(dir).Describe(context.Background(), Env{})
		if err != nil {
			return err
		}
		l := DefaultLayout(d)
		l.Dev = tree
		l.Devices = append(l.Devices, pipe)
		l.Links = append(l.Links, Link{"/dev/in/null", "../null"})
		if _, err := l.Compile(Env{Features: Probe(), UserNamespace: true}); !errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("with a user namespace: %w", err)
		}
		if err := Enter(context.Background(), l, Env{Features: Probe()}); err != nil {
			return err
		}
		var st, dev unix.Stat_t
		if err := errors.Join(unix.Stat("/dev/null", &st), unix.Stat("/dev", &dev)); err != nil {
			return err
		}
		if st.Rdev != unix.Mkdev(1, 3) || st.Mode != unix.S_IFCHR|0o666 || st.Dev != dev.Dev {
			return fmt.Errorf("/dev/null is %+v", st)
		}
		if err := os.WriteFile("/dev/in/null", []byte("x"), 0o666); err != nil {
			return err
		}
		if fi, err := os.Stat("/dev/in/pipe"); err != nil || fi.Mode() != fs.ModeNamedPipe|0o640 {
			return fmt.Errorf("%v %w", fi, err)
		}
		if to, err := os.Readlink("/dev/stdin"); to != "/proc/self/fd/0" {
			return fmt.Errorf("%q %w", to, err)
		}
		return nil
	})
}

// A tree serves one container.
func TestDevTreeTwice(t *testing.T) {
	dir := makeTestRoot(t)
	var tree *DevTree
	enter := func() error {
		d, err := rootDir(dir).Describe(context.Background(), Env{})
		if err != nil {
			return err
		}
		l := DefaultLayout(d)
		l.Dev = tree
		return Enter(context.Background(), l, Env{Features: Probe()})
	}
	hold := make(chan struct{})
	defer close(hold)
	thread(t, func() (err error) {
		if tree, err = NewDevTree(DevConfig{}); err != nil {
			return err
		}
		first := make(chan error)
		go func() {
			_ = onThread(func() error {
				first <- enter()
				<-hold // it stays in use
				return nil
			})
		}()
		if err := <-first; err != nil {
			return err
		}
		return nil
	})
	if tree == nil {
		return
	}
	defer tree.Close()
	done := make(chan error)
	go func() { done <- onThread(enter) }()
	if err := <-done; !errors.Is(err, unix.EINVAL) {
		t.Error("used again:", err)
	}
	if Remedy("attach device tree to", "/dev", unix.EINVAL) == "" {
		t.Error("no remedy")
	}
}

func TestDevTreeFaults(t *testing.T) {
	for name, c := range map[string]DevConfig{
		"mount":  {Mount: BindMount("/dev", "/dev")},
		"device": {Devices: []Device{{Path: "/etc/null", Char: true}}},
		"link":   {Links: []Link{{"/dev/x", ""}}},
	} {
		if _, err := NewDevTree(c); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 1001} {
		if _, err := NewDevPool(DevPoolConfig{Size: n}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("size %d: %v", n, err)
		}
	}
	if os.Getuid() != 0 {
		if _, err := NewDevTree(DevConfig{}); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
		if _, err := NewDevPool(DevPoolConfig{Size: 1}); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
	}
}

// A tree fits where nothing would be different without it.
func TestDevTreeFits(t *testing.T) {
	tree := &DevTree{cfg: DevConfig{}.withDefaults()}
	root := &Description{Kind: KindBind, Layers: []Layer{{Path: "/"}}}
	for name, c := range map[string]struct {
		change func(*Layout)
		fits   bool
	}{
		"default": {func(*Layout) {}, true},
		"more": {func(l *Layout) {
			l.Devices = append(l.Devices, Device{Path: "/dev/kvm", Char: true, Major: 10, Minor: 232})
		}, true},
		"less":        {func(l *Layout) { l.Devices = l.Devices[1:] }, false},
		"other node":  {func(l *Layout) { l.Devices[0].Mode = 0o600 }, false},
		"no link":     {func(l *Layout) { l.Links = nil }, false},
		"other size":  {func(l *Layout) { l.Mounts[l.devMount()].Size = 1 << 20 }, false},
		"other flags": {func(l *Layout) { l.Mounts[l.devMount()].Set |= NoExec }, false},
		"no tmpfs":    {func(l *Layout) { l.Mounts = nil }, false},
	} {
		l := DefaultLayout(root)
		c.change(l)
		if got := tree.Fits(l); got != c.fits {
			t.Errorf("%s: %v", name, got)
		}
		if l.Dev = tree; c.fits != (l.Validate() == nil) {
			t.Errorf("%s: %v", name, l.Validate())
		}
	}
}

func TestDevPool(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	p, err := NewDevPool(DevPoolConfig{Size: 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		tree, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if tree, err := p.Get(ctx); err == nil {
		tree.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Get(t.Context()); !errors.Is(err, ErrPoolClosed) {
		t.Error(err)
	}
	if p.TryGet() != nil {
		t.Error("a tree of a closed pool")
	}
	if s := p.Stats(); s.Ready != 0 || s.Made < 4 || s.LastError != nil {
		t.Errorf("%+v", s)
	}
}
