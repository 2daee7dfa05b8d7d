// Command uts shows what a UTS namespace is: a host name of one's own. UTS is the name of the structure that uname(2)
// fills in. See uts_namespaces(7); Linux 2.6.19.
//
//	go run ./examples/namespaces/uts
//
// Root may make one; anybody else needs a user namespace first, in which he is root.
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/caisson-go/caisson/namespaces"
)

func main() {
	log.SetFlags(0)
	before, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	cmd := namespaces.Command("sh", "-c", `echo "inside:  $(uname -n)"; hostname renamed && echo "inside:  $(uname -n), after it was changed there"`)
	cmd.Set = namespaces.HostSet()
	cmd.Set.UTS = namespaces.New()
	cmd.Set.Hostname = "box"
	if os.Geteuid() != 0 {
		cmd.Set.User = namespaces.New()
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	fmt.Println("outside:", before)
	if err := cmd.Run(); err != nil {
		log.Fatal(err)
	}
	after, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("outside: %s, still the same: %v\n", after, after == before)
}
