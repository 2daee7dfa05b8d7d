// Command cgroup shows what a cgroup namespace is: paths of control groups that begin at one's own group. Without one a
// process reads in /proc/self/cgroup where on the host it was put. See cgroup_namespaces(7); Linux 4.6.
//
//	go run ./examples/namespaces/cgroup
//
// The container gets a group of its own where that is possible: as root, or as a user with a delegated group (on
// cgroup v2: systemd-run --user --scope -p Delegate=yes).
package main

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
)

func main() {
	log.SetFlags(0)
	missing := ""
	for _, l := range []struct {
		text string
		ns   namespaces.Namespace
	}{
		{"with the host's cgroup namespace", namespaces.Host()},
		{"with a cgroup namespace of its own", namespaces.New()},
	} {
		groups, c, err := look(context.Background(), l.ns)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s, the container reads that it is in\n", l.text)
		for line := range strings.Lines(groups) {
			fmt.Print("\t", line)
		}
		if m, ok := c.Isolation().Get("cgroup"); ok && m.Status != caisson.Applied {
			missing = m.Reason
		}
	}
	if missing != "" {
		fmt.Printf("They have no group of their own here, but share that of this program: %s\n", missing)
	}
}

// look runs a container with namespace ns and returns its list of groups, each path once.
func look(ctx context.Context, ns namespaces.Namespace) (string, *caisson.Container, error) {
	c, err := caisson.New(
		caisson.WithID("lesson"),
		caisson.WithNamespace(namespaces.Cgroup, ns),
		caisson.WithCommand("sh", "-c", "cut -d: -f3 /proc/self/cgroup | sort -u"),
	)
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	out, err := c.Output(ctx)
	return string(out), c, err
}
