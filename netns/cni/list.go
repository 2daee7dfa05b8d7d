package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caisson-go/caisson/netns"
)

// List is a network configuration list: plugins that are run one after the other, with what each is told.
type List struct {
	// Name is the network's name.
	Name string
	// Version is that of the specification that the plugins are spoken to in.
	Version string
	// DisableCheck and DisableGC say that CHECK and GC are not run.
	DisableCheck, DisableGC bool
	// Plugins are in the order of ADD.
	Plugins []Plugin

	raw []byte
}

// Plugin is one plugin's part of a list.
type Plugin struct {
	// Type is the name of its program.
	Type string
	// Capabilities are what it takes at run time: "portMappings", "bandwidth", "ips", "mac", ...
	Capabilities []string
	// DNS is what its configuration says about names.
	DNS DNS

	conf map[string]json.RawMessage
}

// versions are those that are spoken, in their order.
var versions = []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// atLeast says that a version is not before another.
func atLeast(version, min string) bool {
	return slices.Index(versions, version) >= slices.Index(versions, min)
}

// maxConfig bounds a configuration, in bytes.
const maxConfig = 1 << 20

type listJSON struct {
	Name         string                       `json:"name"`
	CNIVersion   string                       `json:"cniVersion"`
	CNIVersions  []string                     `json:"cniVersions"`
	DisableCheck loose                        `json:"disableCheck"`
	DisableGC    loose                        `json:"disableGC"`
	Plugins      []map[string]json.RawMessage `json:"plugins"`
	Type         string                       `json:"type"`
}

// loose is a truth value that some write as a text.
type loose bool

func (l *loose) UnmarshalJSON(b []byte) error {
	switch strings.ToLower(strings.Trim(string(b), `"`)) {
	case "true":
		*l = true
	case "false", "null", "":
		*l = false
	default:
		return fmt.Errorf("%s is neither true nor false", b)
	}
	return nil
}

// Parse reads a configuration list (.conflist), or the configuration of one plugin (.conf). All faults are reported, as errors
// that match netns.ErrInvalid; a version that is not spoken matches netns.ErrUnsupported.
func Parse(data []byte) (*List, error) {
	fail := func(err error) (*List, error) {
		return nil, &Error{Op: "read configuration", Err: err}
	}
	if len(data) > maxConfig {
		return fail(fmt.Errorf("%w: more than %d bytes", netns.ErrInvalid, maxConfig))
	}
	var in listJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return fail(fmt.Errorf("%w: %w", netns.ErrInvalid, err))
	}
	if in.Plugins == nil && in.Type != "" {
		var one map[string]json.RawMessage
		if err := json.Unmarshal(data, &one); err != nil {
			return fail(fmt.Errorf("%w: %w", netns.ErrInvalid, err))
		}
		in.Plugins = []map[string]json.RawMessage{one}
	}
	l := &List{Name: in.Name, Version: in.version(), DisableCheck: bool(in.DisableCheck), DisableGC: bool(in.DisableGC), raw: slices.Clone(data)}
	var faults []error
	bad := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: %s", netns.ErrInvalid, fmt.Sprintf(format, args...)))
	}
	if !validID(l.Name) {
		bad("name %q is not letters, digits, '_', '.' and '-', beginning with a letter or digit", l.Name)
	}
	if !slices.Contains(versions, l.Version) {
		faults = append(faults, fmt.Errorf("%w: cniVersion %q; known are %s", netns.ErrUnsupported, l.Version, strings.Join(versions, ", ")))
	}
	if len(in.Plugins) == 0 || len(in.Plugins) > 64 {
		bad("%d plugins, not 1 to 64", len(in.Plugins))
	}
	for i, conf := range in.Plugins {
		p, err := parsePlugin(conf)
		if err != nil {
			bad("plugins[%d]: %v", i, err)
		}
		l.Plugins = append(l.Plugins, p)
	}
	if err := errors.Join(faults...); err != nil {
		return fail(err)
	}
	return l, nil
}

// version is the highest that both sides know.
func (l *listJSON) version() string {
	best := l.CNIVersion
	for _, v := range l.CNIVersions {
		if slices.Contains(versions, v) && (!slices.Contains(versions, best) || atLeast(v, best)) {
			best = v
		}
	}
	return best
}

func parsePlugin(conf map[string]json.RawMessage) (Plugin, error) {
	var head struct {
		Type         string          `json:"type"`
		Capabilities map[string]bool `json:"capabilities"`
		DNS          DNS             `json:"dns"`
	}
	b, err := json.Marshal(conf)
	if err == nil {
		err = json.Unmarshal(b, &head)
	}
	p := Plugin{Type: head.Type, DNS: head.DNS, conf: conf}
	for c, on := range head.Capabilities {
		if on {
			p.Capabilities = append(p.Capabilities, c)
		}
	}
	slices.Sort(p.Capabilities)
	if err == nil && (head.Type == "" || head.Type == "." || head.Type == ".." || strings.ContainsAny(head.Type, "/\x00")) {
		err = fmt.Errorf("type %q is not the name of a program", head.Type)
	}
	return p, err
}

// validID judges names of networks and containers, which are parts of names of files.
func validID(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return true
}

// ReadFile reads a configuration from a file.
func ReadFile(path string) (*List, error) {
	data, err := readBounded(path, maxConfig)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", netns.ErrNotFound, err)
		}
		return nil, &Error{Op: "read configuration", Object: path, Err: err}
	}
	l, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// ReadDir reads the configuration of a name from the files *.conflist, *.conf and *.json of a directory, which runtimes usually
// have at /etc/cni/net.d; "" is the first of them in the order of their names. The error matches netns.ErrNotFound if there is
// none; files that cannot be read are named in it.
func ReadDir(dir, name string) (*List, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{Op: "read configurations", Object: dir, Err: err}
	}
	var faults []error
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".conflist" && ext != ".conf" && ext != ".json" {
			continue
		}
		l, err := ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			faults = append(faults, err)
		} else if name == "" || l.Name == name {
			return l, nil
		}
	}
	return nil, &Error{Op: "find configuration", Object: fmt.Sprintf("%q in %s", name, dir), Err: errors.Join(append([]error{netns.ErrNotFound}, faults...)...)}
}

// request makes what a plugin is told: its configuration with the network's name, the version, what it takes at run
// time, and the result so far. Further keys are those of GC.
func (l *List) request(p *Plugin, runtime map[string]any, prev json.RawMessage, further map[string]any) ([]byte, error) {
	out := map[string]any{}
	for k, v := range p.conf {
		out[k] = v
	}
	out["name"], out["cniVersion"] = l.Name, l.Version
	delete(out, "cniVersions")
	delete(out, "disableCheck")
	delete(out, "disableGC")
	given := map[string]any{}
	for _, c := range p.Capabilities {
		if v, ok := runtime[c]; ok {
			given[c] = v
		}
	}
	if len(given) > 0 {
		out["runtimeConfig"] = given
	}
	if prev != nil {
		out["prevResult"] = prev
	}
	for k, v := range further {
		out[k] = v
	}
	return json.Marshal(out)
}
