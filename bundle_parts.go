package caisson

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/codec"
)

// ReadBundle reads a bundle's configuration, dir/config.json unless another name is given, without judging it ([FromSpec] does), and says
// where it is: the directory as an absolute path. Unlike [FromBundle] it passes over properties that the specification does not have, as that wants of
// runtimes (config.md, "Extensibility").
func ReadBundle(dir, config string) (*specs.Spec, string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	s := new(specs.Spec)
	config = cmp.Or(config, "config.json")
	if !filepath.IsAbs(config) {
		config = filepath.Join(dir, config)
	}
	if err := readJSON(config, s); err != nil {
		return nil, "", fmt.Errorf("caisson: read bundle: %w", err)
	}
	return s, dir, nil
}

// BundleProcess reads the process of the configuration of the bundle that the container was made from ([FromBundle], [FromSpec]), and nothing else of
// config.json: what engines begin with that start a further process by a command line ([ProcessFromSpec]). It is the one that is there now, whatever the container
// was made with. The error is [ErrUnsupported] for a container that was not made from a bundle, and a [FieldError] where there is no process.
func (c *Container) BundleProcess() (*specs.Process, error) {
	if c.spec.bundle.dir == "" {
		return nil, c.fail("read bundle", fmt.Errorf("%w: the container was not made from one", ErrUnsupported))
	}
	var config struct {
		Process *specs.Process `json:"process"`
	}
	err := readJSON(filepath.Join(c.spec.bundle.dir, "config.json"), &config)
	if err == nil && config.Process == nil {
		err = &FieldError{"process", fmt.Errorf("%w: it is missing", ErrInvalid)}
	}
	if err != nil {
		return nil, c.fail("read bundle", err)
	}
	return config.Process, nil
}

// readJSON reads a file of at most maxConfig bytes.
func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var text bytes.Buffer
	if st, err := f.Stat(); err == nil && st.Size() < maxConfig {
		text.Grow(int(st.Size()) + bytes.MinRead)
	}
	if _, err = text.ReadFrom(io.LimitReader(f, maxConfig)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	b := text.Bytes()
	if codec.Decode(b, into) {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b)) // tells what is wrong
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%s: %w: data after the end, or more than %d bytes", path, ErrInvalid, maxConfig)
	}
	return nil
}

// ProcessFromSpec returns an option for [Container.Exec] that asks for the process that an OCI configuration describes, as engines
// give it to "exec --process": all of it as it is there, and nothing of the container's own process but the seccomp filter and
// Landlock. Faults are [FieldError], all at once.
func ProcessFromSpec(p *specs.Process) (ProcessOption, error) {
	b := &bundleReader{}
	b.process(p)
	if err := errors.Join(b.faults...); err != nil {
		return nil, err
	}
	opts := []ProcessOption{processOption(func(p *processSpec) {
		p.env, p.caps, p.groups, p.rlimits, p.umask, p.attrs, p.lsm = nil, capsSpec{}, nil, nil, nil, attributes{}, lsmSpec{}
	})}
	for _, o := range b.opts {
		if o, ok := o.(ProcessOption); ok {
			opts = append(opts, o)
		}
	}
	if a := p.ExecCPUAffinity; a != nil && a.Final != "" {
		opts = append(opts, WithCPUAffinity(a.Final))
	}
	return ProcessOptions(opts...), nil
}

// ResourcesFromSpec translates the limits of an OCI configuration (config-linux.md, "Control groups"), for [Container.Update].
// Rules for devices, which are not limits, are passed over. Faults are [FieldError], all at once.
func ResourcesFromSpec(r *specs.LinuxResources) (cgroups.Resources, error) {
	if r == nil {
		return cgroups.Resources{}, nil
	}
	b := &bundleReader{}
	res := b.resources(r)
	return res, errors.Join(b.faults...)
}
