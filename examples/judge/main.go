// Command judge runs programs that nobody trusts, each in a container of its own, and says how they fared: accepted, wrong
// answer, out of memory, out of time, too much output, or crashed. It is what a programming contest or a course needs.
//
// As a service, with a page to try it:
//
//	go run ./examples/judge -listen localhost:8080
//
// and once, from the command line:
//
//	go run ./examples/judge -in 3 -want 6 ./examples/judge/double.sh
//
// A program sees nothing of the host but the public programs, has no network and no capability, and leaves nothing behind.
// Needs Linux 5.14. Limits of memory and processes need a cgroup that may be written; without one, -best-effort goes on
// and says what was not held.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/caisson-go/caisson"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("judge: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	cfg := defaultConfig()
	flag.StringVar(&cfg.listen, "listen", "", "serve HTTP at `ADDRESS`; without it one program is run")
	flag.StringVar(&cfg.root, "rootfs", "", "`DIR` with the programs' root filesystem, instead of a view of the host's")
	flag.IntVar(&cfg.parallel, "parallel", runtime.NumCPU()+1, "programs that run at the same time")
	flag.IntVar(&cfg.queue, "queue", cfg.queue, "programs that wait; more are refused with status 429")
	flag.IntVar(&cfg.pool, "pool", 0, "containers that are kept ready (0: twice -parallel)")
	flag.DurationVar(&cfg.grace, "grace", cfg.grace, "how long programs that run may go on after SIGTERM")
	flag.BoolVar(&cfg.bestEffort, "best-effort", false, "go on where limits cannot be applied")
	in := flag.String("in", "", "once: `TEXT` for the program's standard input")
	want := flag.String("want", "", "once: the right answer (`TEXT`)")
	cpu := flag.Duration("cpu", time.Second, "once: CPU time that the program may use")
	wall := flag.Duration("wall", 10*time.Second, "once: time that it may take in all")
	flag.Parse()
	if cfg.listen != "" {
		if flag.NArg() > 0 {
			return errors.New("-listen takes no program")
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return serve(ctx, cfg, func(url string) { fmt.Println("listening on", url) })
	}
	if flag.NArg() != 1 {
		return errors.New("give one program or script, or -listen")
	}
	program, err := os.ReadFile(flag.Arg(0))
	if err != nil {
		return err
	}
	v, err := once(context.Background(), program, *in, *want,
		caisson.WithCPUTime(*cpu), caisson.WithTimeout(*wall), caisson.WithBestEffort(cfg.bestEffort))
	if err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
