// Package resctrltest has a directory stand for the resctrl file system, in tests: few machines have one. No product imports it.
package resctrltest

import (
	"errors"
	"os"
	"path/filepath"
)

// Dir is a directory in place of the file system. Its methods do what the kernel does.
type Dir string

// Make fills the directory, which is empty, as the kernel fills a file system that is being mounted.
func (d Dir) Make() error {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return err
	}
	defer root.Close()
	err = populate(root, ".")
	for _, resource := range []string{"L2", "L3", "MB"} {
		err = errors.Join(err, root.MkdirAll("info/"+resource, 0o755))
	}
	return err
}

// Find says where it is.
func (d Dir) Find() (dir string, mbps bool, err error) { return string(d), false, nil }

// Check returns a function that takes the directory for the file system, and asks was about others.
func (d Dir) Check(was func(*os.Root) error) func(*os.Root) error {
	return func(root *os.Root) error {
		if root.Name() == string(d) {
			return nil
		}
		return was(root)
	}
}

// Mkdir makes a group.
func (d Dir) Mkdir(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return populate(root, name)
}

// Write adds to a file, so that tests see all that was written.
func (d Dir) Write(root *os.Root, name, text string) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Rmdir removes a group, whatever is in it.
func (d Dir) Rmdir(root *os.Root, name string) error {
	if _, err := root.Lstat(name); err != nil {
		return err
	}
	return root.RemoveAll(name)
}

// populate makes the files of a group.
func populate(root *os.Root, name string) error {
	var faults []error
	for _, file := range []string{"tasks", "schemata"} {
		faults = append(faults, root.WriteFile(filepath.Join(name, file), nil, 0o644))
	}
	return errors.Join(append(faults, root.MkdirAll(filepath.Join(name, "mon_groups"), 0o755))...)
}
