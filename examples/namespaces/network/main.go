// Command network shows what a network namespace is: devices, addresses, routes and ports of one's own. A new one has
// nothing but a loopback device that is down. See network_namespaces(7); Linux 2.6.29.
//
//	go run ./examples/namespaces/network
//
// Root may make one; anybody else needs a user namespace first, in which he is root.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"strings"

	"github.com/caisson-go/caisson/namespaces"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) == 3 && os.Args[1] == "inside" {
		look("inside", os.Args[2])
		return
	}
	if err := lesson(); err != nil {
		log.Fatal(err)
	}
}

func lesson() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	look("outside", l.Addr().String())

	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := namespaces.Command(self, "inside", l.Addr().String()) // this program once more
	cmd.Set = namespaces.HostSet()
	cmd.Set.Net = namespaces.New()
	if os.Geteuid() != 0 {
		cmd.Set.User = namespaces.New()
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// look tells which devices there are, and whether a port that is taken outside can be reached and taken here.
func look(where, address string) {
	interfaces, err := net.Interfaces()
	if err != nil {
		log.Fatal(err)
	}
	var names []string
	for _, i := range interfaces {
		state := "down"
		if i.Flags&net.FlagUp != 0 {
			state = "up"
		}
		names = append(names, i.Name+" ("+state+")")
	}
	fmt.Printf("%-8s devices: %s\n", where, strings.Join(names, ", "))
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	fmt.Printf("%-8s connect to the server on %s: %s\n", where, address, orWorks(err))
	l, err := net.Listen("tcp", ":"+address[strings.LastIndexByte(address, ':')+1:])
	if err == nil {
		l.Close()
	}
	fmt.Printf("%-8s take the same port for another server: %s\n", where, orWorks(err))
}

// orWorks returns the last part of an error, which is the kernel's answer.
func orWorks(err error) string {
	if err == nil {
		return "works"
	}
	return err.Error()[strings.LastIndexByte(err.Error(), ':')+2:]
}
