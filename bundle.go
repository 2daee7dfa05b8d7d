package caisson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxConfig bounds what is read of a config.json, in bytes.
const maxConfig = 16 << 20

// FieldError is a fault of one field of an OCI runtime configuration (config.json). It matches [ErrInvalid] where the value
// is wrong, and [ErrUnsupported] where caisson, or this form of the configuration, cannot carry it out. From [New] it has the [OptionError] of the
// option that the field has become, also where an option after the configuration has replaced that.
type FieldError struct {
	Field string // "linux.resources.memory.limit"
	Err   error
}

// Error returns "config.json: linux.resources.memory.limit: cause".
func (e *FieldError) Error() string { return "config.json: " + e.Field + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

// FromBundle reads an OCI bundle: dir/config.json, of the runtime specification 1.3 or earlier (config.md), whose root
// filesystem and relative mount sources are looked up below dir. The option it returns asks for exactly what the
// configuration says, which is less contained than the default where the configuration is: namespaces that it does
// not list are the host's, and without linux.seccomp there is no filter. It may be combined with others, which come
// after it:
//
//	o, err := caisson.FromBundle("/var/lib/bundles/web")
//	if err != nil { … }
//	c, err := caisson.New(o, caisson.WithStdio())
//
// A field that cannot be honoured is refused by name, never left out: see [FieldError]. All faults are reported at once.
// A bundle comes from whoever is trusted to start containers: it can name any directory of the host.
func FromBundle(dir string) (Option, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("caisson: read bundle: %w", err)
	}
	defer f.Close()
	s, err := readSpec(f)
	if err != nil {
		return nil, fmt.Errorf("caisson: read bundle: %s: %w", f.Name(), err)
	}
	return FromSpec(s, dir)
}

// readSpec decodes a configuration. Fields that are not of the specification are refused: whoever wrote them expects
// them to do something.
func readSpec(r io.Reader) (*specs.Spec, error) {
	d := json.NewDecoder(io.LimitReader(r, maxConfig))
	d.DisallowUnknownFields()
	s := new(specs.Spec)
	if err := d.Decode(s); err != nil {
		if _, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
			err = fmt.Errorf("%w: %v (the runtime specification %s does not have it)", ErrUnsupported, err, specs.Version)
		}
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: data after the configuration, or more than %d bytes", ErrInvalid, maxConfig)
	}
	return s, nil
}

// FromSpec is [FromBundle] for a configuration that has been read already. The bundle directory is where relative paths
// begin; it must be absolute.
func FromSpec(s *specs.Spec, bundle string) (Option, error) {
	b := &bundleReader{dir: bundle}
	if !filepath.IsAbs(bundle) {
		return nil, fmt.Errorf("%w: bundle directory %q is not absolute", ErrInvalid, bundle)
	}
	b.version(s.Version)
	b.platforms(s)
	b.process(s.Process)
	b.root(s.Root)
	b.identity(s)
	b.mounts(s.Mounts)
	b.hooks(s.Hooks)
	b.linux(s.Linux)
	b.add(option(func(s *spec) { s.bundle.dir = bundle }))
	if len(s.Annotations) > 0 {
		b.add(WithLabels(s.Annotations))
	}
	if err := errors.Join(b.faults...); err != nil {
		return nil, err
	}
	return Options(b.opts...), nil
}

// bundleReader turns a configuration into options.
type bundleReader struct {
	dir  string
	opts []Option

	rootDir string // the root filesystem
	faults  []error
}

func (b *bundleReader) add(o ...Option) { b.opts = append(b.opts, o...) }

func (b *bundleReader) bad(field, format string, args ...any) {
	b.faults = append(b.faults, &FieldError{field, fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)})
}

// refuse notes a field that is set and cannot be honoured.
func (b *bundleReader) refuse(set bool, field, format string, args ...any) {
	if set {
		b.faults = append(b.faults, &FieldError{field, fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)})
	}
}

// fail notes an error that a conversion met.
func (b *bundleReader) fail(field string, err error) {
	if err != nil {
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
			err = fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		b.faults = append(b.faults, &FieldError{field, err})
	}
}

// fieldOf are the fields that become options whose values New judges.
var fieldOf = map[string]string{
	"WithCommand": "process.args", "WithDir": "process.cwd", "WithEnv": "process.env", "WithUser": "process.user", "WithGroups": "process.user.additionalGids",
	"WithUmask": "process.user.umask", "WithOOMScoreAdj": "process.oomScoreAdj", "WithNamedRlimit": "process.rlimits", "WithRlimit": "process.rlimits",
	"WithCapabilitySets": "process.capabilities", "WithScheduler": "process.scheduler", "WithIOPriority": "process.ioPriority",
	"WithSELinux": "process.selinuxLabel", "WithAppArmor": "process.apparmorProfile", "WithTerminal": "process.terminal",
	"WithHostname": "hostname", "WithDomainname": "domainname", "WithLabels": "annotations", "WithMount": "mounts",
	"WithIDMaps": "linux.uidMappings, linux.gidMappings", "WithDevice": "linux.devices", "WithResources": "linux.resources", "WithMemory": "linux.resources.memory.limit",
	"WithCPUs": "linux.resources.cpu", "WithPids": "linux.resources.pids.limit", "WithDeviceRules": "linux.resources.devices",
	"WithCgroup": "linux.cgroupsPath", "WithSeccomp": "linux.seccomp", "WithSeccompListener": "linux.seccomp.listenerPath", "WithSysctl": "linux.sysctl",
	"WithMaskedPaths": "linux.maskedPaths", "WithReadOnlyPaths": "linux.readonlyPaths", "WithMountLabel": "linux.mountLabel", "WithNetDevices": "linux.netDevices",
	"WithMemoryPolicy": "linux.memoryPolicy", "WithPersonality": "linux.personality",
}

// inFields names the fields of a configuration that faults of its options come from.
func inFields(err error) error {
	if o, ok := err.(*OptionError); ok {
		if field := fieldOf[o.Option]; field != "" {
			return &FieldError{field, o}
		}
		return err
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() { // it says more than its parts
		return err
	}
	var faults []error
	for _, e := range joined.Unwrap() {
		faults = append(faults, inFields(e))
	}
	return errors.Join(faults...)
}

// path makes a path of the bundle absolute.
func (b *bundleReader) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(b.dir, p)
}
