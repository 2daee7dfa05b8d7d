// Command doctor tells what this machine and this user can do, and what would help where something is missing. It finds
// out by doing: it makes namespaces, asks for control groups, and starts a container.
//
//	go run ./examples/doctor
//	go run ./examples/doctor -json
//
// It changes nothing on the machine. The exit status is 0 if a container can be started, else 1.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"
)

// State is how a matter stands.
type State string

const (
	OK      State = "ok"
	Limited State = "limited" // containers work, with less
	Missing State = "missing"
)

// Finding is one thing that was looked at.
type Finding struct {
	Area   string `json:"area"` // "machine", "namespaces", "user ids", "control groups", "container"
	Name   string `json:"name"`
	State  State  `json:"state"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

func main() {
	log.SetFlags(0)
	asJSON := flag.Bool("json", false, "print the findings as JSON")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	findings := examine(ctx)
	var err error
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(findings)
	} else {
		err = write(os.Stdout, findings)
	}
	if err != nil {
		log.Fatal(err)
	}
	if last := findings[len(findings)-1]; last.State == Missing {
		os.Exit(1)
	}
}

// write prints the findings for people: what is in order in one line, what is not with its reason and remedy.
func write(w io.Writer, findings []Finding) error {
	marks := map[State]string{OK: " ok ", Limited: "  - ", Missing: " NO "}
	area := ""
	for _, f := range findings {
		if f.Area != area {
			area = f.Area
			fmt.Fprintf(w, "%s\n", area)
		}
		if _, err := fmt.Fprintf(w, "%s %-20s %s\n", marks[f.State], f.Name, f.Detail); err != nil {
			return err
		}
		if f.Remedy != "" {
			fmt.Fprintf(w, "%25s what helps: %s\n", "", f.Remedy)
		}
	}
	return nil
}

// examine looks at everything; the start of a container comes last, for it needs all the rest.
func examine(ctx context.Context) []Finding {
	var l []Finding
	l = append(l, machine()...)
	l = append(l, spaces(ctx)...)
	l = append(l, userIDs())
	l = append(l, groups()...)
	return append(l, container(ctx)...)
}
