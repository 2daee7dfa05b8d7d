// Command doctor tells what this machine and this user can do, and what would help where something is missing. It finds
// out by doing: it makes namespaces, asks for control groups, connects containers, and starts one with nothing but defaults.
//
//	go run ./examples/doctor
//	go run ./examples/doctor -json
//
// It changes nothing on the machine. The exit status is 0 if a container can be started, else 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/caisson-go/caisson"
)

func main() {
	log.SetFlags(0)
	asJSON := flag.Bool("json", false, "print the findings as JSON")
	flag.Parse()
	// Each of the two gets time of its own: a start that never comes leaves the probes theirs.
	start, left := try(time.Minute)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	findings := append(append(append(caisson.Probe(ctx), networks(ctx)...), images()), append(left, start)...)
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
	if start.Answer != caisson.Yes {
		os.Exit(1)
	}
}

// try starts a container with the defaults, and tells how that went and which defaults did not hold.
func try(patience time.Duration) (start caisson.Ability, left []caisson.Ability) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start = caisson.Ability{Area: "container", Name: "start", Answer: caisson.Yes}
	c, err := caisson.New(caisson.WithCommand("true"))
	if err == nil {
		defer c.Close()
		begin := time.Now()
		err = c.Run(ctx)
		start.Detail = fmt.Sprintf("from start to end in %v", time.Since(begin).Round(100*time.Microsecond))
	}
	if err != nil {
		start.Answer, start.Detail, start.Reason = caisson.No, "", err.Error()
		var e *caisson.Error
		if errors.As(err, &e) {
			start.Reason, start.Remedy = e.Err.Error(), e.Remedy
		}
		return start, nil
	}
	for _, m := range c.Isolation().Missing() {
		left = append(left, caisson.Ability{Area: "container", Name: m.Name, Answer: caisson.No, Reason: m.Reason, Remedy: m.Remedy})
	}
	return start, left
}

// write prints the findings for people: what works in one line, what does not with its reason and remedy.
func write(w io.Writer, findings []caisson.Ability) error {
	marks := map[caisson.Answer]string{caisson.Yes: "yes", caisson.No: " no", caisson.Unknown: "  ?"}
	area, told := "", ""
	for _, f := range findings {
		if f.Area != area {
			area = f.Area
			fmt.Fprintf(w, "%s\n", area)
		}
		if _, err := fmt.Fprintf(w, "  %s  %-26s %s%s\n", marks[f.Answer], f.Name, f.Detail, f.Reason); err != nil {
			return err
		}
		if f.Remedy != "" && f.Remedy != told { // the same thing often helps with several
			fmt.Fprintf(w, "%33s what helps: %s\n", "", f.Remedy)
		}
		told = f.Remedy
	}
	return nil
}
