package main

import (
	"debug/elf"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// demonstration is built where no context is given. Its only program is this one.
//
//go:embed demo.Dockerfile
var demonstration []byte

// greet is the command of its RUN.
func greet(file string) error {
	fmt.Printf("I am process %d, and write %s\n", os.Getpid(), file)
	return os.WriteFile(file, []byte(os.Getenv("GREETING")+"\n"), 0o644)
}

// demonstrate makes a context for it.
func demonstrate(o *options) (dir string, err error) {
	dir, err = os.MkdirTemp("", "caisson-build-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	if err := copyProgram(filepath.Join(dir, "root")); err != nil {
		return "", err
	}
	o.context = dir
	if len(o.tags) == 0 {
		o.tags = []string{"caisson.invalid/demonstration"}
	}
	if o.network == "auto" {
		o.network = "none"
	}
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), demonstration, 0o644)
}

// copyProgram makes a root filesystem of this program, and of the libraries that it needs if it was built to need some.
func copyProgram(root string) error {
	if err := copyFile("/proc/self/exe", filepath.Join(root, "program")); err != nil {
		return err
	}
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	interp := f.Section(".interp")
	if interp == nil {
		return nil
	}
	loader, err := interp.Data()
	if err != nil {
		return err
	}
	if name := strings.TrimRight(string(loader), "\x00"); filepath.IsAbs(name) {
		if err := copyFile(name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return copyLibraries(filepath.Join(root, "lib"))
}

// copyLibraries copies those that this process has loaded.
func copyLibraries(to string) error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(maps), "\n") {
		_, file, ok := strings.Cut(line, " /")
		if !ok || !strings.Contains(filepath.Base(file), ".so") {
			continue
		}
		if err := copyFile("/"+file, filepath.Join(to, filepath.Base(file))); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err = io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
