package resctrl

import (
	"errors"
	"os"
	"path/filepath"
)

// Fake has this program take a directory for the mounted file system, until the function that it returns is called. It is for tests, and not
// for several at once: few machines have the file system.
func Fake(dir string) (restore func(), err error) {
	was := sys
	sys = system{
		find: func() (mount, error) { return mount{dir: dir}, nil },
		check: func(root *os.Root) error {
			if root.Name() == dir {
				return nil
			}
			return isResctrl(root)
		},
		mkdir: func(root *os.Root, name string) error {
			if err := root.Mkdir(name, 0o755); err != nil {
				return err
			}
			return populate(root, name)
		},
		write: func(root *os.Root, name, text string) error { return writeOnce(root, name, text, os.O_APPEND) },
		rmdir: func(root *os.Root, name string) error {
			if _, err := root.Lstat(name); err != nil {
				return err
			}
			return root.RemoveAll(name)
		},
	}
	root, err := os.OpenRoot(dir)
	if err == nil {
		err = populate(root, ".")
		for _, resource := range []string{"L2", "L3", "MB"} {
			err = errors.Join(err, root.MkdirAll("info/"+resource, 0o755))
		}
		root.Close()
	}
	return func() { sys = was }, err
}

// populate makes the files that the kernel makes.
func populate(root *os.Root, name string) error {
	var faults []error
	for _, file := range []string{"tasks", "schemata"} {
		faults = append(faults, root.WriteFile(filepath.Join(name, file), nil, 0o644))
	}
	return errors.Join(append(faults, root.MkdirAll(filepath.Join(name, "mon_groups"), 0o755))...)
}
