package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/rootfs"
)

// config is the command line, parsed.
type config struct {
	rootfs             string
	image, store       string
	found              string           // the image, by the name that it has in the store
	source             rootfs.Source    // of the image
	more               []caisson.Option // of the image
	readOnly, writable bool
	mounts             []rootfs.Mount
	volumes            volumes

	memory, disk, outputLimit size
	cpus                      float64
	pids                      int64
	timeout, cpuTime          time.Duration

	id, hostname, user, workdir string
	userns                      string
	network                     network
	devices                     devices
	env, capAdd, capDrop        list

	tty, interactive           bool
	explain, quiet, bestEffort bool
	init, nesting              bool

	detach, list            bool
	log, wait, stop, remove string
	supervision             supervision

	command []string
}

const usage = `run: runs a command in a container.

	run [flags] [--] [COMMAND [ARGUMENT...]]
	run -list
	run -wait ID | -stop ID | -rm ID

Without a command it runs a shell if it is used at a terminal, and a small demonstration otherwise.
What contains the command is told on standard error; -quiet leaves that out. The exit status is the command's own,
128+N if signal N ended it, 125 if the container could not be made, 126 if the command is not executable, 127 if it
does not exist.

`

// parse reads the command line. Sizes, mounts and numbers are judged here, everything else by caisson.New.
func parse(args []string, stdout, stderr io.Writer) (*config, error) {
	c := &config{volumes: volumes{mode: "anonymous"}}
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.SetOutput(stderr) // what was asked for, as by -h, goes to stdout
	f.Usage = func() {}

	f.StringVar(&c.rootfs, "rootfs", "", "directory `DIR` as root filesystem, with a throw-away writable layer; default: the host's own programs")
	f.StringVar(&c.image, "image", "", "`IMAGE` as root filesystem: layout:DIR, archive:FILE, or a name, fetched from its registry unless it is in the store")
	f.StringVar(&c.store, "store", "", "`DIR` of the images; default: /var/lib/caisson/images, or below ~/.local/share")
	f.Func("image-volumes", "what the image wants kept apart from its root filesystem is a directory that goes with the container, filled from the image, or an empty filesystem in memory, or nothing special: `anonymous|tmpfs|ignore`; default anonymous", c.volumes.set)
	f.BoolVar(&c.readOnly, "read-only", false, "make the root filesystem read-only")
	f.BoolVar(&c.writable, "writable", false, "let the container change -rootfs itself, instead of a throw-away layer")
	both(f, "v", "volume", "bind mount `SRC:DST[:ro]`; may be repeated", func(s string) error { return c.addMount(parseVolume(s)) })
	f.Func("mount", "mount `type=bind,src=...,dst=...[,ro]` or type=tmpfs,dst=...[,size=64M]; may be repeated",
		func(s string) error { return c.addMount(parseMount(s)) })
	f.Func("tmpfs", "empty filesystem in memory at `DST[:size=64M]`; may be repeated", func(s string) error { return c.addMount(parseTmpfs(s)) })

	f.Var(&c.memory, "memory", "limit of memory and swap together (`SIZE`, such as 64M)")
	f.Func("cpus", "limit of CPU time in `CPUS`: 0.5 is half of one; 0 for none", func(s string) (err error) { c.cpus, err = parseCPUs(s); return err })
	f.Func("pids", "limit of processes and threads (`N`); -1 or 0 for none; default 4096", func(s string) (err error) { c.pids, err = parsePids(s); return err })
	f.Var(&c.disk, "disk", "limit of the throw-away layer (`SIZE`); default 256M")
	f.Var(&c.outputLimit, "output-limit", "end the command when it has written more than this `SIZE`")
	f.DurationVar(&c.timeout, "timeout", 0, "end the command after this `DURATION`, such as 10s")
	f.DurationVar(&c.cpuTime, "cpu-time", 0, "end the command when it has used this much CPU time (`DURATION`)")
	f.BoolVar(&c.bestEffort, "best-effort", false, "go on without limits that cannot be applied here")

	f.StringVar(&c.id, "id", "", "`NAME` of the container")
	f.StringVar(&c.hostname, "hostname", "", "`NAME` of the host as seen inside; default: the id, or caisson")
	both(f, "u", "user", "`USER[:GROUP]` by name or number; default: root", set(&c.user))
	both(f, "w", "workdir", "working `DIR`ectory; default: /", set(&c.workdir))
	both(f, "e", "env", "set `KEY=VALUE`, or KEY as it is outside; may be repeated", c.env.Set)
	f.Var(&c.capAdd, "cap-add", "add the `CAPABILITY`; may be repeated")
	f.Var(&c.capDrop, "cap-drop", "drop the `CAPABILITY`, or ALL; may be repeated")
	c.network.flags(f)
	c.devices.flags(f)
	f.StringVar(&c.userns, "userns", "", "user namespace (`new|host`); default: new but for root with -rootfs")

	f.BoolVar(&c.init, "init", false, "put an init before the command, which collects orphans and passes signals on")
	f.BoolVar(&c.nesting, "nesting", false, "let containers be made inside, in a user namespace of the container's own")
	bothBool(f, &c.tty, "t", "tty", "give the command a terminal")
	bothBool(f, &c.interactive, "i", "interactive", "keep standard input open; a terminal implies it")
	f.BoolVar(&c.explain, "explain", false, "print what a start does, call by call, and do not start")
	bothBool(f, &c.quiet, "q", "quiet", "print nothing but what the command prints")

	bothBool(f, &c.detach, "d", "detach", "let the container outlive this program, and print its id; one is made up without -id")
	f.StringVar(&c.log, "log", "", "append the command's output to `FILE`; with -detach it goes nowhere else")
	c.supervision.flags(f)
	f.BoolVar(&c.list, "list", false, "list the detached containers of this user")
	f.StringVar(&c.wait, "wait", "", "wait for the detached container `ID`; the exit status is its command's")
	f.StringVar(&c.stop, "stop", "", "stop the detached container `ID`; after ten seconds it is killed")
	f.StringVar(&c.remove, "rm", "", "end and remove the detached container `ID`")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		f.SetOutput(stdout)
		fmt.Fprint(stdout, usage)
		f.PrintDefaults()
		return nil, err
	} else if err != nil {
		fmt.Fprintln(stderr, "-h lists the flags")
		return nil, err
	}
	c.command = f.Args()
	return c, nil
}

// parseCPUs reads a number of CPUs.
func parseCPUs(s string) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n < 0 || n != n {
		return 0, fmt.Errorf("%q is not a number of CPUs such as 0.5", s)
	}
	return n, nil
}

// parsePids reads a number of processes; nothing above zero means no limit, as it does for docker run.
func parsePids(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	if n <= 0 {
		n = cgroups.Max
	}
	return n, nil
}

// both defines a flag under its short and its long name.
func both(f *flag.FlagSet, short, long, usage string, fn func(string) error) {
	f.Func(long, usage, fn)
	f.Func(short, "short for -"+long, fn)
}

func bothBool(f *flag.FlagSet, p *bool, short, long, usage string) {
	f.BoolVar(p, long, false, usage)
	f.BoolVar(p, short, false, "short for -"+long)
}

func set(p *string) func(string) error { return func(s string) error { *p = s; return nil } }

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// size is a number of bytes with an optional suffix k, M, G or T, each 1024 times the one before.
type size int64

func (s *size) String() string { return strconv.FormatInt(int64(*s), 10) }

func (s *size) Set(text string) error {
	number, shift := strings.TrimSuffix(strings.ToLower(text), "b"), 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("kmgt", number[n-1]); i >= 0 {
			number, shift = number[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return fmt.Errorf("%q is not a size such as 64M", text)
	}
	*s = size(n << shift)
	return nil
}
