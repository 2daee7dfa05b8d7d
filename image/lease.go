package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// A lease is a file that says which unpacked layers are in use. It counts for as long as a program has it locked, which ends
// with the program, or, if it is durable, until it is dropped or the machine starts again.
type lease struct {
	Layers    []string `json:"layers"`
	Snapshots []string `json:"snapshots,omitempty"`
	Durable   bool     `json:"durable,omitempty"`
	Boot      string   `json:"boot"`
}

const maxLease = 1 << 20

// durablePrefix is before the names of durable leases, so that no name is one of another kind.
const durablePrefix = "named-"

// takeLease protects layers, and snapshots if it has a name. The caller holds the store's lock.
func (s *Store) takeLease(name string, layers []string, snapshots ...string) (release func() error, err error) {
	data, err := json.Marshal(lease{Layers: layers, Snapshots: snapshots, Durable: name != "", Boot: s.boot})
	if err != nil {
		return nil, err
	}
	if name != "" {
		return func() error { return nil }, s.replaceFile(dirLeases+"/"+durablePrefix+name, data)
	}
	f, err := os.CreateTemp(s.path(dirLeases), "use-*")
	if err != nil {
		return nil, err
	}
	if err = flock(f, true); err == nil {
		_, err = f.Write(data)
	}
	release = func() error {
		err := os.Remove(f.Name())
		if notExist(err) {
			err = nil
		}
		return errors.Join(err, f.Close())
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// addLeased adds the layers that are in use, and removes leases that count no more. The caller has the store alone.
func (s *Store) addLeased(needed map[string]bool) error {
	entries, err := os.ReadDir(s.path(dirLeases))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := s.path(dirLeases + "/" + e.Name())
		live, err := s.liveLease(path)
		if err != nil {
			return err
		}
		if live == nil {
			if err := os.Remove(path); err != nil && !notExist(err) {
				return err
			}
			continue
		}
		for _, l := range live.Layers {
			needed[layerMark+l] = true
		}
	}
	return nil
}

// liveLease returns a lease that counts, or nil.
func (s *Store) liveLease(path string) (*lease, error) {
	f, err := tryLock(path, os.O_RDWR, true) // it may be dropped in this moment, and must not come back
	if notExist(err) {
		return nil, nil
	}
	held := errors.Is(err, errWouldBlock)
	if err != nil && !held {
		return nil, err
	}
	if f != nil {
		defer f.Close()
	}
	data, err := readBounded(path, maxLease)
	if notExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var l lease
	if err := json.Unmarshal(data, &l); err != nil {
		if held || strings.HasPrefix(filepath.Base(path), durablePrefix) {
			return nil, because(ErrCorrupt, "lease %s: %v", path, err)
		}
		return nil, nil // of a program that was killed while it wrote
	}
	if held || l.Durable && l.Boot == s.boot {
		return &l, nil
	}
	return nil, nil
}

// DropLease ends what [Source.Lease] or [SnapshotSource.Lease] began: the layers may be removed again. One that does not exist is
// [ErrNotFound].
func (s *Store) DropLease(ctx context.Context, name string) error {
	if !validLease(name) {
		return &Error{Op: "drop lease", Object: name, Err: because(errInvalid, "not the name of a lease")}
	}
	use, err := s.use(ctx)
	if err != nil {
		return err
	}
	defer use.Close()
	err = os.Remove(s.path(dirLeases + "/" + durablePrefix + name))
	if notExist(err) {
		err = ErrNotFound
	}
	return fail("drop lease", name, err)
}

// validLease accepts what container ids are made of.
func validLease(s string) bool {
	return len(s) > 0 && len(s) <= 128 && only(s, func(c byte) bool { return wordByte(c) || c == '.' || c == '-' })
}
