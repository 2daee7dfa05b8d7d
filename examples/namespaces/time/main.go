// Command time shows what a time namespace is: a boot-time and a monotonic clock of one's own, shifted against the
// host's. The time of day is not concerned. See time_namespaces(7); Linux 5.6.
//
//	go run ./examples/namespaces/time
//
// Root may make one; anybody else needs a user namespace first, in which he is root.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/caisson-go/caisson/namespaces"
)

const day = 24 * time.Hour

func main() {
	log.SetFlags(0)
	outside, err := os.ReadFile("/proc/uptime")
	if err != nil {
		log.Fatal(err)
	}
	cmd := namespaces.Command("cat", "/proc/uptime")
	cmd.Set = namespaces.HostSet()
	cmd.Set.Time = namespaces.New()
	cmd.Set.TimeOffsets.Boottime = 1000 * day
	cmd.Set.TimeOffsets.Monotonic = 1000 * day
	if os.Geteuid() != 0 {
		cmd.Set.User = namespaces.New()
	}
	cmd.Stderr = os.Stderr
	inside, err := cmd.Output()
	if err != nil {
		log.Fatal(err)
	}
	a, b := uptime(outside), uptime(inside)
	fmt.Printf("outside: the machine has been up for %v\n", a)
	fmt.Printf("inside:  the machine has been up for %v, which is %.0f days more\n", b, (b-a).Hours()/24)
}

// uptime reads the first number of /proc/uptime, in seconds.
func uptime(text []byte) time.Duration {
	first, _, _ := strings.Cut(string(text), " ")
	d, err := time.ParseDuration(first + "s")
	if err != nil {
		log.Fatal(err)
	}
	return d
}
