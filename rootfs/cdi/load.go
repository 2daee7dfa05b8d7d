package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultDirs are where descriptions are looked for; those in later directories beat those in earlier ones.
func DefaultDirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// maxFiles bounds the descriptions of a directory.
const maxFiles = 4096

// Specs are the descriptions of a machine. They do not change after Load.
type Specs struct {
	devices map[string]found
	faults  []error
}

// found is a device, and where it was described.
type found struct {
	spec   *Spec
	device *Device
	file   string
	rank   int
	other  string // another file of the same rank has it too
}

// Load reads all descriptions (*.json, *.yaml, *.yml) in the directories, by default [DefaultDirs]. A directory that does not exist is
// empty. A file that cannot be used is no error yet: its devices are missing, and [Specs.Resolve] tells why.
func Load(dirs ...string) (*Specs, error) {
	if len(dirs) == 0 {
		dirs = DefaultDirs()
	}
	s := &Specs{devices: map[string]found{}}
	for rank, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(entries) > maxFiles {
			return nil, fmt.Errorf("%w: %s has more than %d files", ErrInvalid, dir, maxFiles)
		}
		for _, e := range entries {
			s.add(filepath.Join(dir, e.Name()), rank)
		}
	}
	return s, nil
}

func (s *Specs) add(file string, rank int) {
	parse := Parse
	switch filepath.Ext(file) {
	case ".json":
	case ".yaml", ".yml":
		parse = ParseYAML
	default:
		return
	}
	if fi, err := os.Stat(file); err == nil && !fi.Mode().IsRegular() {
		s.faults = append(s.faults, fmt.Errorf("%s: %w: not a regular file", file, ErrInvalid))
		return
	}
	f, err := os.Open(file)
	if err != nil {
		s.faults = append(s.faults, err)
		return
	}
	defer f.Close()
	spec, err := parse(f)
	if err != nil {
		s.faults = append(s.faults, fmt.Errorf("%s: %w", file, err))
		return
	}
	for i := range spec.Devices {
		name := spec.Kind + "=" + spec.Devices[i].Name
		now := found{spec: spec, device: &spec.Devices[i], file: file, rank: rank}
		if old, ok := s.devices[name]; ok && old.rank == rank {
			now.other = old.file
		}
		s.devices[name] = now
	}
}

// Devices returns the qualified names of all devices, in order.
func (s *Specs) Devices() []string {
	var out []string
	for name := range s.devices {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// lookup finds the devices; every fault is reported.
func (s *Specs) lookup(names []string) ([]found, error) {
	var out []found
	var faults []error
	for _, name := range names {
		if _, _, err := ParseName(name); err != nil {
			faults = append(faults, err)
			continue
		}
		d, ok := s.devices[name]
		switch {
		case !ok:
			faults = append(faults, fmt.Errorf("%w: %s (known: %s)", ErrUnresolved, name, orNone(s.Devices())))
			faults = append(faults, s.faults...)
		case d.other != "":
			faults = append(faults, fmt.Errorf("%w: %s is in both %s and %s", ErrUnresolved, name, d.other, d.file))
		default:
			out = append(out, d)
		}
	}
	return out, errors.Join(faults...)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if len(names) > 20 {
		names = append(slices.Clone(names[:20]), "…")
	}
	return strings.Join(names, ", ")
}
