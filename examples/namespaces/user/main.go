// Command user shows what a user namespace is: user ids and capabilities of one's own. Whoever makes one is root inside
// with every capability, over what the namespace owns and nothing else. See user_namespaces(7); Linux 3.8.
//
//	go run ./examples/namespaces/user
//
// It needs no privilege, unless the machine's policy forbids it: see examples/doctor.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"syscall"

	"github.com/caisson-go/caisson/namespaces"
)

const script = `echo "inside:  I am user $(id -u) with capabilities $(sed -n 's/^CapEff:.//p' /proc/self/status)"
echo "inside:  id inside, id outside, how many:" $(cat /proc/self/uid_map)
chown 0 /etc/hostname 2>/dev/null && echo "inside:  I may change the owner of a file of the host's root" ||
	echo "inside:  a file of the host's root has owner $(stat -c %u /etc/hostname) here, and I may not touch it"
: >"$1"/made && echo "inside:  a file that I made has owner $(stat -c %u "$1"/made)"
hostname mine 2>/dev/null && echo "inside:  I may rename the host" || echo "inside:  I may not rename the host"`

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "lesson-")
	if err != nil {
		log.Fatal(err)
	}
	err = lesson(dir)
	os.RemoveAll(dir)
	if err != nil {
		log.Fatal(err)
	}
}

func lesson(dir string) error {
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	maps, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err != nil {
		return err
	}
	if maps.Shortfall != nil {
		fmt.Println("only one user id can be mapped:", maps.Shortfall)
	}
	fmt.Printf("outside: I am user %d\n", os.Geteuid())
	cmd := namespaces.Command("sh", "-c", script, "sh", dir)
	cmd.Set = namespaces.HostSet()
	cmd.Set.User = namespaces.New()
	cmd.IDMaps = maps.IDMaps
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	fi, err := os.Stat(filepath.Join(dir, "made"))
	if err != nil {
		return err
	}
	fmt.Printf("outside: that file has owner %d\n", fi.Sys().(*syscall.Stat_t).Uid)
	return nil
}
