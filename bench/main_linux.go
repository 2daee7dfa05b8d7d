package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

// commands by name. Each gets a workspace with payloads and floors.
var commands = map[string]func(*workspace) error{
	"compare": compare, "probe": probe, "steps": steps, "throughput": throughput, "heap": heap, "mounts": mounts,
	"memory": memory, "pauses": pauses, "hostwork": hostwork, "stats": groupStats, "exec": execs, "life": lives, "pool": pools, "judge": judged, "net": nets,
	"image": images, "oci": runtimes,
}

// Flags. Each command uses those that mean something to it.
var (
	rounds    = flag.Int("rounds", 40, "rounds back to back; samples of other commands")
	gapRounds = flag.Int("gap-rounds", 20, "rounds with idle gaps")
	gap       = flag.Duration("gap", 30e6, "the idle gap before a start")
	only      = flag.String("only", "", "comma-separated engines; empty for all")
	quiet     = flag.Duration("quiet", 100e6, "longest wait for other processes to be idle, before each sample")
	results   = flag.String("results", "bench/results", "directory of built tools and results")
	build     = flag.Bool("build", true, "build the tools first; without it those in -results are used, as in a virtual machine without compilers")
	profile   = flag.String("cpuprofile", "", "hostwork: write a CPU profile here")
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == imageProgram {
		if err := imageDo(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == webProgram {
		fmt.Fprintln(os.Stderr, serveWeb())
		os.Exit(1)
	}
	flag.CommandLine.Init("bench", flag.ExitOnError)
	name, err := commandOf(flag.CommandLine, os.Args[1:])
	if err == nil {
		err = run(name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// commandOf takes the command, which comes before the flags, and the flags. What follows them would be measured without: hours later somebody
// would notice.
func commandOf(f *flag.FlagSet, args []string) (name string, err error) {
	name = "compare"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	if err := f.Parse(args); err != nil {
		return "", err
	}
	if f.NArg() > 0 {
		return "", fmt.Errorf("%q after the command %s and its flags: the one command comes first, then flags; see go doc ./bench", f.Args(), name)
	}
	return name, nil
}

func run(name string) error {
	command := commands[name]
	if command == nil {
		return fmt.Errorf("no command %q; see go doc ./bench", name)
	}
	if os.Getenv(pastaEnv) != "" { // started by itself
		return pastaRole()
	}
	if os.Getuid() != 0 {
		return errors.New("needs root")
	}
	w, err := newWorkspace(*results)
	if err != nil {
		return err
	}
	return errors.Join(command(w), w.close())
}
