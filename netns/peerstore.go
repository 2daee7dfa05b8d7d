package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// KeyValue is a store that the hosts of an overlay network share: etcd, Consul, a table of a database, or a [Directory]. It is
// used by several goroutines.
type KeyValue interface {
	// Put sets a value.
	Put(ctx context.Context, key string, value []byte) error
	// Delete removes a value. That there is none is no fault.
	Delete(ctx context.Context, key string) error
	// List returns all whose keys begin with prefix.
	List(ctx context.Context, prefix string) (map[string][]byte, error)
	// Wait returns when something beneath prefix may have changed, or ctx ends, or after a while of its own choosing. The
	// hosts look again then; they do so every few seconds in any case, so that a change between List and Wait may be missed.
	Wait(ctx context.Context, prefix string) error
}

// NewPeerStore makes Peers of a store. Each host has one key: prefix and the host's address; its value is the OverlayHost as JSON.
// prefix is the network's own: "overlay/web/".
func NewPeerStore(kv KeyValue, prefix string) Peers { return &peerStore{kv, prefix} }

type peerStore struct {
	kv     KeyValue
	prefix string
}

func (p *peerStore) Announce(ctx context.Context, self OverlayHost) error {
	key := p.prefix + self.Local.String()
	if len(self.Endpoints) == 0 {
		return p.kv.Delete(ctx, key)
	}
	b, err := json.Marshal(self)
	if err != nil {
		return err
	}
	return p.kv.Put(ctx, key, b)
}

// Watch goes on when the store fails for a while, with what was known last.
func (p *peerStore) Watch(ctx context.Context, changed func([]OverlayHost)) error {
	var last []OverlayHost
	first := true
	for ctx.Err() == nil {
		all, err := p.kv.List(ctx, p.prefix)
		if err != nil && first {
			return err
		}
		if err == nil {
			if hosts := decodeHosts(all); first || !reflect.DeepEqual(hosts, last) {
				changed(hosts)
				last, first = hosts, false
			}
		}
		wait, cancel := context.WithTimeout(ctx, lookAgain)
		werr := p.kv.Wait(wait, p.prefix)
		looked := wait.Err() != nil
		cancel()
		if werr != nil && !looked || err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// lookAgain is after what time a store is looked at though it told of no change.
const lookAgain = 3 * time.Second

// decodeHosts reads what hosts announced, in the order of their keys. What is not understood is left out.
func decodeHosts(all map[string][]byte) (out []OverlayHost) {
	for _, k := range slices.Sorted(maps.Keys(all)) {
		var h OverlayHost
		if len(all[k]) <= maxAnnounced && json.Unmarshal(all[k], &h) == nil && h.Local.IsValid() {
			out = append(out, h)
		}
	}
	return out
}

// maxAnnounced bounds what a host announces, in bytes.
const maxAnnounced = 4 << 20

// Directory is a KeyValue in the files of a directory, which the hosts share by whatever filesystem they have in common. Who
// may write there decides where packets go. It is looked at once a second.
type Directory string

// Put writes a file under another name and renames it.
func (d Directory) Put(_ context.Context, key string, value []byte) error {
	f, err := os.CreateTemp(string(d), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), d.path(key))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// path escapes what is no name of a file.
func (d Directory) path(key string) string {
	return filepath.Join(string(d), "kv-"+url.PathEscape(key))
}

// Delete removes a file.
func (d Directory) Delete(_ context.Context, key string) error {
	if err := os.Remove(d.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List reads all files.
func (d Directory) List(_ context.Context, prefix string) (map[string][]byte, error) {
	l, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, e := range l {
		name, ok := strings.CutPrefix(e.Name(), "kv-")
		key, err := url.PathUnescape(name)
		if !ok || err != nil || !strings.HasPrefix(key, prefix) || !e.Type().IsRegular() || len(out) >= maxPeers {
			continue
		}
		b, err := readBounded(filepath.Join(string(d), e.Name()), maxAnnounced)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[key] = b
	}
	return out, nil
}

// Wait waits a second.
func (d Directory) Wait(ctx context.Context, _ string) error {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
	return nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: %s is larger than %d bytes", ErrInvalid, path, limit)
	}
	return b, err
}
