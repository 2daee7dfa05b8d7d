package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson"
)

// shown is a container as state and list show it: the state of the specification, and what callers of runc look for.
type shown struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	Pid         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func show(i *caisson.Info) shown {
	s := i.Spec()
	owner := ""
	if u, err := user.LookupId(strconv.Itoa(i.UID)); err == nil {
		owner = u.Username
	}
	return shown{Version: s.Version, ID: s.ID, Pid: s.Pid, Status: s.Status, Bundle: s.Bundle, Rootfs: i.Rootfs, Created: i.Created.UTC(),
		Annotations: s.Annotations, Owner: owner}
}

func showState(ctx context.Context, g *global, args []string) error {
	args, err := newFlags("state", "CONTAINER", 1, 1).parse(args)
	if err != nil {
		return err
	}
	i, err := g.dir().Info(ctx, args[0])
	if err != nil {
		return explain(args[0], err)
	}
	s := show(i)
	s.Owner = "" // as runc has it here
	return printIndented(os.Stdout, s)
}

func printIndented(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

func list(ctx context.Context, g *global, args []string) error {
	f := newFlags("list", "", 0, 0)
	format, quiet := f.str("format", "f", "table"), f.toggle("quiet", "q")
	if _, err := f.parse(args); err != nil {
		return err
	}
	infos, err := g.dir().List(ctx)
	if err != nil {
		g.report(err)
	}
	var all []shown
	for i := range infos {
		all = append(all, show(&infos[i]))
	}
	switch {
	case *quiet:
		for _, s := range all {
			fmt.Println(s.ID)
		}
	case *format == "json":
		return json.NewEncoder(os.Stdout).Encode(all)
	case *format == "table":
		return table(os.Stdout, all)
	default:
		return fmt.Errorf("invalid format option")
	}
	return nil
}

func table(out io.Writer, all []shown) error {
	w := tabwriter.NewWriter(out, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}

func ps(ctx context.Context, g *global, args []string) error {
	f := newFlags("ps", "CONTAINER [PS OPTIONS]", 1, -1)
	f.plain = true
	format := f.str("format", "f", "table")
	args, err := f.parse(args)
	if err != nil {
		return err
	}
	c, err := g.load(ctx, args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	top, err := c.Top(ctx)
	if err != nil {
		return err
	}
	pids := []int{}
	for _, p := range top {
		pids = append(pids, p.PID)
	}
	switch *format {
	case "json":
		return json.NewEncoder(os.Stdout).Encode(pids)
	case "table":
		return psTable(ctx, pids, args[1:])
	}
	return fmt.Errorf("invalid format option")
}

// psTable shows the lines of ps(1) that are about the processes.
func psTable(ctx context.Context, pids []int, options []string) error {
	if len(options) > 0 && options[0] == "--" {
		options = options[1:]
	}
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", options...).Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(ee.Stderr))
		}
		return fmt.Errorf("ps: %w", err)
	}
	head, rest, _ := bytes.Cut(out, []byte("\n"))
	column := slices.Index(strings.Fields(string(head)), "PID")
	if column < 0 {
		return fmt.Errorf("couldn't find PID field in ps output")
	}
	fmt.Printf("%s\n", head)
	for line := range strings.Lines(string(rest)) {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Print(line)
		}
	}
	return nil
}
