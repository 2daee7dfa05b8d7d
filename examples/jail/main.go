// Command jail shows why containers use pivot_root(2) and not chroot(2): it locks itself into a directory in both ways
// and breaks out, as any program can that is root. From the chroot it gets away.
//
//	go run ./examples/jail
//
// chroot changes where paths of one process begin, and nothing else: the whole tree is still mounted, and ".." leads to
// it as soon as the process stands outside of its root. pivot_root exchanges the root of the mount namespace; then the
// host's tree is unmounted, and there is nowhere to go. Linux 5.14 and no privilege; see chroot(2).
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) == 4 && os.Args[1] == "prisoner" {
		if err := prisoner(os.Args[2], os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "prison-")
	if err != nil {
		log.Fatal(err)
	}
	err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "treasure"), []byte("gold"), 0o644))
	for _, way := range []string{"chroot", "pivot_root"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, way), 0o755), imprison(way, dir))
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		log.Fatal(err)
	}
}

// imprison runs this program once more, in a mount namespace of its own and as root there.
func imprison(way, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := namespaces.Command(self, "prisoner", way, dir)
	cmd.Set = namespaces.HostSet()
	cmd.Set.Mount = namespaces.New()
	if os.Geteuid() != 0 {
		cmd.Set.User = namespaces.New()
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// prisoner is locked up and breaks out, on a thread that nothing else uses.
func prisoner(way, dir string) error {
	lock := map[string]func(string) error{"chroot": chroot, "pivot_root": pivot}[way]
	return namespaces.Do(func() error {
		if err := lock(filepath.Join(dir, way)); err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
		fmt.Printf("%s: locked up, / holds: %s\n", way, list("/"))
		if err := escape(); err != nil {
			return fmt.Errorf("%s: escape: %w", way, err)
		}
		fmt.Printf("%s: after the escape, / holds: %s\n", way, list("/"))
		if treasure, err := os.ReadFile(filepath.Join(dir, "treasure")); err != nil {
			fmt.Printf("%s: HELD. %v\n\n", way, err)
		} else {
			fmt.Printf("%s: ESCAPED. The treasure outside is %s.\n\n", way, treasure)
		}
		return nil
	}, namespaces.In(namespaces.Mount, namespaces.New()))
}

func chroot(dir string) error {
	return errors.Join(unix.Chroot(dir), unix.Chdir("/"))
}

func pivot(dir string) error {
	env := rootfs.Env{Features: rootfs.Probe(), UserNamespace: os.Getuid() != 0}
	desc, err := rootfs.Dir(dir).Describe(context.Background(), env)
	if err != nil {
		return err
	}
	defer desc.Close()
	return rootfs.Enter(context.Background(), &rootfs.Layout{Root: desc}, env)
}

// escape is the classic way out. A second chroot moves the root below the working directory, so that ".." is not
// stopped at the root any more and leads to the top of what is mounted.
func escape() error {
	if err := errors.Join(unix.Mkdir("hole", 0o755), unix.Chroot("hole")); err != nil {
		return err
	}
	for range 100 {
		if err := unix.Chdir(".."); err != nil {
			return err
		}
	}
	return unix.Chroot(".")
}

func list(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, " ")
}
