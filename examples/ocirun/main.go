// Command ocirun is an OCI runtime: a drop-in for runc and crun, with their commands, flags and formats, for podman,
// buildah, containerd, Docker and Kubernetes. All it does is done by package caisson; this is its command line.
//
//	podman --runtime /usr/local/bin/ocirun run --rm docker.io/library/alpine echo hello
//	ocirun run --bundle /path/to/bundle web
//	ocirun --help
//
// Differences from runc: a property of config.json that cannot be carried out is an error that names it, never left
// out; the state below --root is this program's own, so that a container made by one runtime is managed by that one.
// Needs Linux 5.14.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
)

// command is one of the commands.
type command struct {
	name, args, about string
	run               func(ctx context.Context, g *global, args []string) error
}

func commands() []command {
	return []command{
		{"create", "CONTAINER", "create a container: all but its process runs", create},
		{"start", "CONTAINER", "run the process of a created container", start},
		{"run", "CONTAINER", "create and start a container, and wait for it", run},
		{"exec", "CONTAINER COMMAND [ARGS]", "run another process in a running container", execute},
		{"kill", "CONTAINER [SIGNAL]", "send a signal (default: SIGTERM) to the process", kill},
		{"delete", "CONTAINER", "remove a container that has ended", remove},
		{"state", "CONTAINER", "show the state of a container", showState},
		{"list", "", "list the containers", list},
		{"ps", "CONTAINER [PS OPTIONS]", "show the processes of a container", ps},
		{"pause", "CONTAINER", "stop all processes where they are", pause},
		{"resume", "CONTAINER", "let them go on", resume},
		{"update", "CONTAINER", "change limits", update},
		{"events", "CONTAINER", "show figures and OOM kills", events},
		{"spec", "", "write an example config.json", writeSpec},
		{"features", "", "show what is supported", features},
		{"checkpoint", "CONTAINER", "write a running container to disk", checkpoint},
		{"restore", "CONTAINER", "make a container go on from there", restore},
	}
}

// global are the options before the command.
type global struct {
	root, log, logFormat, rootless, criu, cgroupManager string
	systemd, debug, version                             bool
}

// exitError is the exit status of a process that is to be that of this program.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	growStack(0)
	os.Exit(execution(context.Background(), os.Args[1:]))
}

// growStack has the runtime give this goroutine, once, a stack that every command does with, while little is on it. Else it is copied four times, each
// time from deeper in.
//
//go:noinline
func growStack(n int) {
	if n > 0 { // never: the space is taken on entry, and nothing is written to it
		var space [24 << 10]byte
		space[n] = 1
		growStack(int(space[n/2]))
	}
}

func execution(ctx context.Context, args []string) int {
	g, rest, err := parseGlobal(args)
	if errors.Is(err, flag.ErrHelp) {
		usage(os.Stdout)
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if g.version {
		fmt.Printf("ocirun version %s\nspec: %s\n", version(), specVersion())
		return 0
	}
	if len(rest) == 0 || rest[0] == "help" {
		usage(os.Stdout)
		return 0
	}
	i := slices.IndexFunc(commands(), func(c command) bool { return c.name == rest[0] })
	if i < 0 {
		fmt.Fprintf(os.Stderr, "ocirun: no command %q\n", rest[0])
		return 1
	}
	err = commands()[i].run(ctx, g, rest[1:])
	var status exitError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	g.report(err)
	if rest[0] == "exec" {
		return 255
	}
	return 1
}

func parseGlobal(args []string) (*global, []string, error) {
	g := &global{}
	f := flag.NewFlagSet("ocirun", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&g.root, "root", "", "directory of the state")
	f.StringVar(&g.log, "log", "", "file of the log")
	f.StringVar(&g.logFormat, "log-format", "text", "text or json")
	f.StringVar(&g.rootless, "rootless", "auto", "true, false or auto")
	f.StringVar(&g.criu, "criu", "", "the program of that name")
	f.StringVar(&g.cgroupManager, "cgroup-manager", "", "cgroupfs, systemd or disabled")
	f.BoolVar(&g.systemd, "systemd-cgroup", false, "cgroups by systemd")
	f.BoolVar(&g.debug, "debug", false, "log more")
	f.BoolVar(&g.version, "version", false, "print the version")
	f.BoolVar(&g.version, "v", false, "print the version")
	if err := f.Parse(args); err != nil {
		return g, nil, err
	}
	if g.logFormat != "text" && g.logFormat != "json" {
		return g, nil, fmt.Errorf("invalid log-format: %q", g.logFormat)
	}
	if !slices.Contains([]string{"true", "false", "auto"}, g.rootless) {
		return g, nil, fmt.Errorf("invalid value %q for --rootless", g.rootless)
	}
	switch g.cgroupManager {
	case "", "cgroupfs", "disabled":
	case "systemd":
		g.systemd = true
	default:
		return g, nil, fmt.Errorf("invalid value %q for --cgroup-manager", g.cgroupManager)
	}
	if g.root == "" {
		g.root = defaultRoot()
	}
	var err error
	g.root, err = filepath.Abs(g.root)
	return g, f.Args(), err
}

// defaultRoot is /run/ocirun, or a user's own directory.
func defaultRoot() string {
	if os.Geteuid() == 0 && unix.Access("/run", unix.W_OK) == nil {
		return "/run/ocirun"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "ocirun")
	}
	return fmt.Sprintf("/tmp/ocirun-%d", os.Getuid())
}

// dir is where containers are recorded.
func (g *global) dir() caisson.StateDir { return caisson.StateDir(g.root) }

func (g *global) load(ctx context.Context, id string) (*caisson.Container, error) {
	c, err := g.dir().Load(ctx, id)
	if err == nil {
		c.LogTo(g.logger())
	}
	return c, explain(id, err)
}

// explain says what callers of runc look for in errors.
func explain(id string, err error) error {
	if errors.Is(err, caisson.ErrNotFound) {
		return fmt.Errorf("container %q does not exist: %w", id, err)
	}
	return err
}

func usage(w io.Writer) {
	fmt.Fprint(w, "ocirun - Open Container Initiative runtime\n\nUSAGE: ocirun [global options] COMMAND [options] [arguments]\n\nCOMMANDS:\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "   %-11s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "\nGLOBAL OPTIONS: --root DIR --log FILE --log-format text|json --systemd-cgroup --cgroup-manager NAME --rootless true|false|auto --debug --version\n")
}

// flags are those of one command. Between each two arguments options may stand too, unless plain is set.
type flags struct {
	*flag.FlagSet
	min, max int // arguments; max -1: any number
	plain    bool
	usage    string
}

func newFlags(name, args string, least, most int) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), min: least, max: most, usage: args}
	f.SetOutput(io.Discard)
	return f
}

// str and toggle define an option with its short name, if it has one.
func (f *flags) str(name, short, value string) *string {
	p := f.String(name, value, "")
	if short != "" {
		f.StringVar(p, short, value, "")
	}
	return p
}

func (f *flags) toggle(name, short string) *bool {
	p := f.Bool(name, false, "")
	if short != "" {
		f.BoolVar(p, short, false, "")
	}
	return p
}

// many is an option that can be given several times.
type many []string

func (m *many) String() string     { return strings.Join(*m, ",") }
func (m *many) Set(s string) error { *m = append(*m, s); return nil }

func (f *flags) many(name, short string) *many {
	m := &many{}
	f.Var(m, name, "")
	if short != "" {
		f.Var(m, short, "")
	}
	return m
}

// parse returns the arguments.
func (f *flags) parse(args []string) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				f.help()
			}
			return nil, err
		}
		left := f.Args()
		dashes := len(left) < len(args) && args[len(args)-len(left)-1] == "--"
		if len(left) == 0 || dashes || f.plain {
			rest = append(rest, left...)
			break
		}
		rest = append(rest, left[0])
		args = left[1:]
	}
	if len(rest) < f.min || f.max >= 0 && len(rest) > f.max {
		return nil, fmt.Errorf("ocirun %s: %d arguments given; usage: ocirun %s [options] %s", f.Name(), len(rest), f.Name(), f.usage)
	}
	if f.min > 0 && rest[0] == "" {
		return nil, errors.New("container id cannot be empty")
	}
	return rest, nil
}

func (f *flags) help() {
	fmt.Printf("USAGE: ocirun %s [options] %s\n\nOPTIONS:\n", f.Name(), f.usage)
	f.VisitAll(func(o *flag.Flag) {
		dash := "--"
		if len(o.Name) == 1 {
			dash = "-"
		}
		fmt.Printf("   %s%s\n", dash, o.Name)
	})
}
