package resctrl

import (
	"errors"
	"path/filepath"
)

// fake is a directory that stands for a mounted resctrl file system, in tests: few machines have one.
var fake string

// Fake has this program take a directory for the mounted file system, until the function that it returns is called. It is for tests, and not
// for several at once.
func Fake(dir string) (restore func(), err error) {
	was := fake
	fake = dir
	t, err := at(dir)
	if err == nil {
		err = errors.Join(t.populate("."), t.Mkdir("info", 0o755))
		t.Close()
	}
	return func() { fake = was }, err
}

// populate makes the files that the kernel makes.
func (t *tree) populate(name string) error {
	var faults []error
	for _, file := range []string{"tasks", "schemata"} {
		faults = append(faults, t.WriteFile(filepath.Join(name, file), nil, 0o644))
	}
	return errors.Join(append(faults, t.MkdirAll(filepath.Join(name, "mon_groups"), 0o755))...)
}
