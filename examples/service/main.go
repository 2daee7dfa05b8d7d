// Command service keeps a server running in a container: it restarts it when it ends, stops it gracefully when it is
// told to, and looks after its log. The server lives and dies with this program.
//
//	go run ./examples/service -- sh -c 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 1; done'
//
// SIGHUP restarts the server, SIGTERM and SIGINT (Ctrl-C) stop it. Needs Linux 5.14 and no privilege.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/caisson-go/caisson"
)

func main() {
	log.SetFlags(log.Ltime)
	grace := flag.Duration("grace", 5*time.Second, "how long the server may take to end after SIGTERM")
	retry := flag.Duration("retry", time.Second, "how long to wait before a server that failed is started again")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("service: give a command")
	}
	c, err := caisson.New(
		caisson.WithID("service"),
		caisson.WithCommand(flag.Arg(0), flag.Args()[1:]...),
		caisson.WithStdout(os.Stdout),
		caisson.WithStderr(os.Stderr),
	)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	err = serve(ctx, c, hup, *grace, *retry)
	if cerr := c.Close(); cerr != nil {
		log.Print(cerr)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// serve runs the container again and again until ctx ends. That context bounds the start alone: the server is to be
// stopped with Stop, which gives it time.
func serve(ctx context.Context, c *caisson.Container, hup <-chan os.Signal, grace, retry time.Duration) error {
	for {
		p, err := c.Start(ctx)
		if ctx.Err() != nil {
			return nil // told to stop before it ran: nothing is left
		} else if err != nil {
			return err
		}
		log.Printf("started, process %d", p.Pid())
		select {
		case <-p.Done():
		case <-hup:
			log.Print("restarting")
			if err := c.Stop(ctx, grace); err != nil {
				return err
			}
		case <-ctx.Done():
			log.Print("stopping")
			if err := c.Stop(context.WithoutCancel(ctx), grace); err != nil {
				return err
			}
		}
		r, err := p.Wait(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		log.Printf("ended: %v after %v", r, r.Wall.Round(time.Millisecond))
		if !pause(ctx, r, retry) {
			return nil
		}
	}
}

// pause waits before a restart unless the end was wished for, and reports whether there is to be one.
func pause(ctx context.Context, r *caisson.Result, retry time.Duration) bool {
	if r.Reason == caisson.ReasonStopped {
		retry = 0
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(retry):
		return ctx.Err() == nil
	}
}
