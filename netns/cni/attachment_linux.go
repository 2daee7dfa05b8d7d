package cni

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/netns"
)

// prepare finds what stands against a container.
func (n *Network) prepare(ctx context.Context, r netns.Request) (*Attachment, error) {
	if err := privileged(); err != nil {
		return nil, err
	}
	if err := n.Status(ctx); err != nil {
		return nil, err
	}
	dir, err := n.cacheDir()
	if err != nil {
		return nil, &Error{Op: "open directory", Object: n.opts.CacheDir, Err: err}
	}
	if n.opts.Journal == nil {
		recoverFirst(ctx)
	}
	id := r.ID
	if !validID(id) {
		id = "caisson-" + random()
	}
	a := &Attachment{net: n, hostname: r.Hostname, rec: record{Dir: dir, Network: n.list.Name, Container: id, Interface: n.opts.Interface,
		Namespace: "cni-" + random(), Path: n.opts.Path}}
	if err := a.absent(); err != nil {
		return nil, err
	}
	return a, nil
}

func journalOf(j netns.Journal) (netns.Journal, error) {
	if j != nil {
		return j, nil
	}
	d, err := journal.Default()
	if err != nil {
		return nil, &Error{Op: "open journal", Err: err}
	}
	return d, nil
}

var recovered sync.Once

// recoverFirst undoes what killed programs of this user left, once for this program. What cannot be undone stays recorded.
func recoverFirst(ctx context.Context) {
	recovered.Do(func() {
		dir, err := journal.Dir()
		if err != nil {
			return
		}
		defer dir.Close()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, _ = journal.Recover(ctx, dir, map[string]journal.Undoer{ownerName: Owner()})
	})
}

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (n *Network) cacheDir() (string, error) {
	var f *os.File
	var err error
	if n.opts.CacheDir == "" {
		f, err = journal.Base("cni", true)
	} else {
		f, err = journal.OwnDir(filepath.Dir(n.opts.CacheDir), filepath.Base(n.opts.CacheDir), true)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	return f.Name(), nil
}

// privileged finds out whether plugins can change networks.
func privileged() error {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer f.Close()
	const need = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "CapEff:"); ok {
			if set, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64); err == nil && set&need == need {
				return nil
			}
		}
	}
	return &Error{Op: "run plugins", Err: fmt.Errorf("%w: %w", netns.ErrPrivilege, unix.EPERM), Remedy: "needs CAP_NET_ADMIN and CAP_SYS_ADMIN; netns.Pasta does without"}
}

func (r *record) namespacePath() string { return "/run/netns/" + r.Namespace }

// call makes what a plugin is called with. One that the lock is given to holds it as long as it, and what it starts, runs.
func (r *record) call(command string, c *cached, lock *os.File) *call {
	k := &call{command: command, containerID: r.Container, ifname: r.Interface, path: r.Path, lock: lock}
	if ns, err := netns.Named(r.Namespace); err == nil {
		k.netns = r.namespacePath()
		ns.Close()
	}
	for i, kv := range c.Args {
		if i > 0 {
			k.args += ";"
		}
		k.args += kv[0] + "=" + kv[1]
	}
	return k
}

func (r *record) lockFile() string { return filepath.Join(r.Dir, "."+filepath.Base(r.file())+".lock") }

// lock keeps others from the connection, also while plugins that a killed program started run on.
func (r *record) lock(ctx context.Context) (*os.File, error) {
	for {
		f, err := os.OpenFile(r.lockFile(), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, &Error{Op: "lock", Object: r.lockFile(), Err: err}
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// It may have been removed in between.
			a, aerr := f.Stat()
			if b, berr := os.Lstat(r.lockFile()); aerr == nil && berr == nil && os.SameFile(a, b) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && err != unix.EWOULDBLOCK && err != unix.EINTR {
			return nil, &Error{Op: "lock", Object: r.lockFile(), Err: err}
		}
		select {
		case <-ctx.Done():
			return nil, &Error{Op: "lock", Object: r.lockFile(), Err: fmt.Errorf("a plugin or another program holds it: %w", ctx.Err())}
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// undo runs DEL with what is kept, and removes what is ours.
func (r *record) undo(ctx context.Context) error {
	if _, err := os.Stat(r.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil // since the machine was started
	}
	lock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	c, err := r.load()
	if err != nil {
		return err
	}
	others := c != nil && filepath.Base(c.NetNS) != r.Namespace // who was refused had seen nothing of them before
	if c != nil && !others {
		if err := r.del(ctx, c); err != nil {
			return &Error{Op: "disconnect from network", Object: r.Network, Err: err, Remedy: "it is kept, to be tried again"}
		}
	}
	if err := netns.Remove(r.Namespace); err != nil && !errors.Is(err, netns.ErrNotFound) {
		return err
	}
	files := []string{r.newFile(), r.file()}
	if others {
		files = files[:1]
	}
	for _, name := range files {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(r.lockFile())
}

// del runs DEL of all plugins, also after one has failed.
func (r *record) del(ctx context.Context, c *cached) error {
	l, err := Parse(c.Config)
	if err != nil {
		return err
	}
	var prev json.RawMessage
	if atLeast(l.Version, "0.4.0") {
		prev = c.Result
	}
	var faults []error
	for i := len(l.Plugins) - 1; i >= 0; i-- {
		b, err := l.request(&l.Plugins[i], c.CapabilityArgs, prev, nil)
		if err == nil {
			_, err = r.call("DEL", c, nil).run(ctx, l.Plugins[i].Type, b)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// GC runs DEL for all containers of the network that are not among keep, by their ids, whoever connected them with the same CacheDir; and,
// from version 1.1.0 on, lets the plugins look for what is left (GC). It returns how many containers it disconnected.
func (n *Network) GC(ctx context.Context, keep ...string) (removed int, err error) {
	dir, err := n.cacheDir()
	if err != nil {
		return 0, err
	}
	all, err := allCached(dir, n.list.Name)
	if err != nil {
		return 0, err
	}
	kept := map[string]bool{}
	for _, id := range keep {
		kept[id] = true
	}
	type attachment struct {
		ContainerID string `json:"containerID"`
		IfName      string `json:"ifname"`
	}
	valid := []attachment{}
	var faults []error
	for _, c := range all {
		if kept[c.ContainerID] {
			valid = append(valid, attachment{c.ContainerID, c.IfName})
			continue
		}
		r, err := decodeRecord(recordVersion, mustJSON(record{dir, c.NetworkName, c.ContainerID, c.IfName, filepath.Base(c.NetNS), n.opts.Path}))
		if err == nil {
			err = r.undo(ctx)
		}
		if err == nil {
			removed++
		}
		faults = append(faults, err)
	}
	if n.list.DisableGC || !atLeast(n.list.Version, "1.1.0") {
		return removed, errors.Join(faults...)
	}
	for i := range n.list.Plugins {
		p := &n.list.Plugins[i]
		b, err := n.list.request(p, nil, nil, map[string]any{"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid})
		if err == nil {
			_, err = (&call{command: "GC", path: n.opts.Path}).run(ctx, p.Type, b)
		}
		faults = append(faults, err)
	}
	return removed, errors.Join(faults...)
}

func mustJSON(r record) []byte {
	b, _ := json.Marshal(r)
	return b
}
