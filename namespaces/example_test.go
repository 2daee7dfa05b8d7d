//go:build linux

package namespaces_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/caisson-go/caisson/namespaces"
)

// A shell that sees itself as process 1, user 0, on a host named "box".
func ExampleCommand() {
	cmd := namespaces.Command("/bin/sh", "-c", "hostname; id -u; echo $$")
	cmd.Set.Hostname = "box"
	out, err := cmd.Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(out))
	// Output:
	// box
	// 0
	// 1
}

// Only the clocks are to differ: the machine has been up for a thousand days. The user namespace gives the right to say so.
func ExampleHostSet() {
	cmd := namespaces.Command("/bin/sh", "-c", "test $(cut -d. -f1 /proc/uptime) -gt 86400000 && echo long up")
	cmd.Set = namespaces.HostSet()
	cmd.Set.User = namespaces.New()
	cmd.Set.Time = namespaces.New()
	cmd.Set.TimeOffsets.Boottime = 1000 * 24 * time.Hour
	out, err := cmd.Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(out))
	// Output: long up
}

// The network interfaces of a network namespace in which nothing was set up.
func ExampleDo() {
	err := namespaces.Do(func() error {
		interfaces, err := net.Interfaces()
		for _, i := range interfaces {
			fmt.Println(i.Name, i.Flags&net.FlagUp != 0)
		}
		return err
	}, namespaces.In(namespaces.Net, namespaces.New()))
	if errors.Is(err, os.ErrPermission) {
		fmt.Println("lo false") // an ordinary user may not; Command may
	} else if err != nil {
		log.Fatal(err)
	}
	// Output: lo false
}

// A function cannot be moved into another user namespace; the error says why and what to do.
func ExampleDo_user() {
	err := namespaces.Do(func() error { return nil }, namespaces.In(namespaces.User, namespaces.New()))
	fmt.Println(errors.Is(err, namespaces.ErrMultithreaded))
	// Output: true
}

// Every fault of a wish is told at once.
func ExampleSet_Validate() {
	s := namespaces.Set{Net: namespaces.JoinPath("netns/blue"), UTS: namespaces.Host(), Hostname: "box"}
	fmt.Println(s.Validate())
	// Output:
	// check network namespace: invalid: path "netns/blue" is not absolute
	// check Hostname: invalid: a name needs a new uts namespace, not "host"
}

// Which ids a container of this user would have.
func ExampleAutoIDMaps() {
	m, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err != nil {
		log.Fatal(err)
	}
	if m.Shortfall != nil {
		log.Printf("only one id: %v", m.Shortfall)
	}
	_, ok := namespaces.ToHost(m.UID, 0)
	fmt.Println("root inside is mapped:", ok)
	// Output: root inside is mapped: true
}

// What this machine and this user can do.
func ExampleProbe() {
	for _, p := range namespaces.Probe(context.Background()) {
		log.Printf("%-8v directly: %v, in a new user namespace: %v %s", p.Kind, p.Direct.Answer, p.InUser.Answer, p.InUser.Remedy)
	}
}

// A process joins the network namespace of another.
func ExampleJoinPID() {
	first := namespaces.Command("/bin/sleep", "60")
	if err := first.Start(); err != nil {
		log.Fatal(err)
	}
	second := namespaces.Command("/bin/readlink", "/proc/self/ns/net")
	second.Set = namespaces.HostSet()
	second.Set.User = namespaces.JoinPID(first.Pid())
	second.Set.Net = namespaces.JoinPID(first.Pid())
	out, err := second.Output()
	if err != nil {
		log.Fatal(err)
	}
	id, err := namespaces.IDOfProcess(namespaces.Net, first.Pid())
	fmt.Println(err, string(out) == fmt.Sprintf("net:[%d]\n", id.Ino))
	_ = first.Signal(os.Kill)
	_ = first.Wait()
	// Output: <nil> true
}
