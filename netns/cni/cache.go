package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caisson-go/caisson/netns"
)

// cached is what is kept about a container's connection, in the form of other runtimes (cniCacheV1).
type cached struct {
	Kind           string          `json:"kind"`
	ContainerID    string          `json:"containerId"`
	Config         []byte          `json:"config"`
	IfName         string          `json:"ifName"`
	NetworkName    string          `json:"networkName"`
	NetNS          string          `json:"netns,omitempty"`
	Args           [][2]string     `json:"cniArgs,omitempty"`
	CapabilityArgs map[string]any  `json:"capabilityArgs,omitempty"`
	Result         json.RawMessage `json:"result,omitempty"`
}

const cacheKind = "cniCacheV1"

// maxCached bounds such a file, in bytes.
const maxCached = maxAnswer + 4*maxConfig

// record is what another program needs to undo a connection.
type record struct {
	Dir       string   `json:"dir"`
	Network   string   `json:"network"`
	Container string   `json:"container"`
	Interface string   `json:"interface"`
	Namespace string   `json:"namespace"` // its name
	Path      []string `json:"path"`
}

const (
	ownerName     = "netns.cni"
	recordVersion = 1
)

func decodeRecord(version int, data []byte) (*record, error) {
	bad := func(format string, args ...any) (*record, error) {
		return nil, &Error{Op: "read record", Err: fmt.Errorf("%w: %s", netns.ErrInvalid, fmt.Sprintf(format, args...))}
	}
	if version != recordVersion {
		return bad("its version %d is unknown", version)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return bad("%v", err)
	}
	if !filepath.IsAbs(r.Dir) || filepath.Clean(r.Dir) != r.Dir {
		return bad("directory %q", r.Dir)
	}
	if !validID(r.Network) || !validID(r.Container) || !validID(r.Namespace) || r.Interface == "" || len(r.Interface) > 15 || strings.ContainsAny(r.Interface, "/\x00") {
		return bad("%q, %q, %q, %q", r.Network, r.Container, r.Namespace, r.Interface)
	}
	return &r, nil
}

func (r *record) file() string {
	return filepath.Join(r.Dir, "results", r.Network+"-"+r.Container+"-"+r.Interface)
}

// newFile is what becomes the file when it has been written. Who writes holds the lock.
func (r *record) newFile() string {
	return filepath.Join(r.Dir, "results", ".new-"+filepath.Base(r.file()))
}

// load reads what is kept; nil if there is nothing.
func (r *record) load() (*cached, error) {
	c, err := readCached(r.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return c, err
}

func readCached(path string) (*cached, error) {
	b, err := readBounded(path, maxCached)
	if err != nil {
		return nil, err
	}
	var c cached
	if err := json.Unmarshal(b, &c); err != nil || c.Kind != cacheKind {
		return nil, &Error{Op: "read cached result", Object: path, Err: errors.Join(netns.ErrInvalid, err)}
	}
	return &c, nil
}

// save writes it whole under another name and renames it.
func (r *record) save(c *cached) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.file()), 0o700); err != nil {
		return err
	}
	if err = os.WriteFile(r.newFile(), b, 0o600); err == nil {
		err = os.Rename(r.newFile(), r.file())
	}
	if err != nil {
		_ = os.Remove(r.newFile())
	}
	return err
}

// allCached reads what is kept about a network's containers, whoever connected them. What cannot be read is an error: a plugin would take a
// container that is connected for one that is gone.
func allCached(dir, network string) (out []*cached, err error) {
	l, err := os.ReadDir(filepath.Join(dir, "results"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range l {
		if !strings.HasPrefix(e.Name(), network+"-") || !e.Type().IsRegular() {
			continue
		}
		c, err := readCached(filepath.Join(dir, "results", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.NetworkName == network {
			out = append(out, c)
		}
	}
	return out, nil
}
