package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Errors that callers match with errors.Is.
var (
	// ErrInvalid: a description or a name breaks the rules of CDI.
	ErrInvalid = errors.New("invalid CDI description")
	// ErrUnresolved: no description has the device, or two of the same rank have it.
	ErrUnresolved = errors.New("CDI device not found")
	// ErrUnsupported: the device needs something that cannot be honoured. It matches errors.ErrUnsupported.
	ErrUnsupported = errors.ErrUnsupported
)

// Spec is one description: the devices of a vendor and class.
type Spec struct {
	Version string   `json:"cdiVersion"`
	Kind    string   `json:"kind"` // "vendor.com/class"
	Devices []Device `json:"devices"`
	// Edits belong to every device of the file.
	Edits       Edits             `json:"containerEdits"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Device is a named device and what it needs.
type Device struct {
	Name        string            `json:"name"`
	Edits       Edits             `json:"containerEdits"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Edits are changes to a container.
type Edits struct {
	Env            []string          `json:"env,omitempty"`
	DeviceNodes    []DeviceNode      `json:"deviceNodes,omitempty"`
	Mounts         []Mount           `json:"mounts,omitempty"`
	Hooks          []Hook            `json:"hooks,omitempty"`
	NetDevices     []json.RawMessage `json:"netDevices,omitempty"`
	IntelRdt       json.RawMessage   `json:"intelRdt,omitempty"`
	AdditionalGIDs []uint32          `json:"additionalGids,omitempty"`
}

// DeviceNode is a node of the host that the container gets.
type DeviceNode struct {
	Path        string  `json:"path"`
	HostPath    string  `json:"hostPath,omitempty"`
	Type        string  `json:"type,omitempty"` // "c", "b"; empty: as on the host
	Major       int64   `json:"major,omitempty"`
	Minor       int64   `json:"minor,omitempty"`
	FileMode    *uint32 `json:"fileMode,omitempty"`
	Permissions string  `json:"permissions,omitempty"` // "rwm"
	UID         *uint32 `json:"uid,omitempty"`
	GID         *uint32 `json:"gid,omitempty"`
}

// Mount is a mount of the host's.
type Mount struct {
	HostPath      string   `json:"hostPath"`
	ContainerPath string   `json:"containerPath"`
	Options       []string `json:"options,omitempty"`
	Type          string   `json:"type,omitempty"`
}

// Hook is a program that the container's life is to call: see [Specs.ResolveWithHooks].
type Hook struct {
	Name    string   `json:"hookName"`
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"`
	Env     []string `json:"env,omitempty"`
	Timeout *int     `json:"timeout,omitempty"` // seconds
}

// versions are those that this package knows.
var versions = []string{"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}

// maxSpec bounds a file.
const maxSpec = 4 << 20

var (
	vendorPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,253}$`)
	classPattern  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,253}$`)
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]{0,253}$`)
)

// Parse reads a description in JSON, at most 4 MiB. Fields that CDI does not have are refused.
func Parse(r io.Reader) (*Spec, error) {
	b, err := readSpec(r)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := new(Spec)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows the description", ErrInvalid)
	}
	return s, s.validate()
}

// ParseYAML is [Parse] of a description in YAML, of which JSON is a part. A key that occurs twice is refused.
func ParseYAML(r io.Reader) (*Spec, error) {
	b, err := readSpec(r)
	if err != nil {
		return nil, err
	}
	if b, err = yaml.YAMLToJSONStrict(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return Parse(bytes.NewReader(b))
}

func readSpec(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSpec+1))
	if err == nil && len(b) > maxSpec {
		err = fmt.Errorf("%w: more than %d bytes", ErrInvalid, maxSpec)
	}
	return b, err
}

func (s *Spec) validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...))
		}
	}
	fault(!slices.Contains(versions, s.Version), "cdiVersion %q is not one of %v", s.Version, versions)
	vendor, class, _ := strings.Cut(s.Kind, "/")
	fault(!vendorPattern.MatchString(vendor) || !classPattern.MatchString(class), "kind %q is not of the form vendor.com/class", s.Kind)
	fault(len(s.Devices) == 0, "no devices")
	seen := map[string]bool{}
	for _, d := range s.Devices {
		fault(!namePattern.MatchString(d.Name), "device name %q", d.Name)
		fault(seen[d.Name], "device %q twice", d.Name)
		seen[d.Name] = true
	}
	return errors.Join(faults...)
}

// ParseName takes a qualified name apart: "vendor.com/class=device".
func ParseName(name string) (kind, device string, err error) {
	kind, device, ok := strings.Cut(name, "=")
	vendor, class, _ := strings.Cut(kind, "/")
	if !ok || !vendorPattern.MatchString(vendor) || !classPattern.MatchString(class) || !namePattern.MatchString(device) {
		return "", "", fmt.Errorf("%w: %.100q is not of the form vendor.com/class=device", ErrInvalid, name)
	}
	return kind, device, nil
}
