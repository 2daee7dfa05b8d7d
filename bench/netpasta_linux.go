package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/netns"
)

// pastaEnv marks this program started once more: "root" in a mount namespace with a tun device, "user" as an ordinary user.
const pastaEnv, pastaUser = "CAISSON_BENCH_PASTA", 54322

// byPasta measures a container of an ordinary user that pasta connects, by its published ports.
func (w *workspace) byPasta(_ context.Context, engines []*netEngine, f *figures) error {
	const name = "pasta (ordinary user)"
	if tool("PASTA", "pasta") == "" {
		return nil
	}
	dir := filepath.Join(w.dir, "pasta")
	self, err := os.Executable()
	if err == nil {
		err = errors.Join(os.Mkdir(dir, 0o700), copyFile(filepath.Join(dir, "bench"), self), os.Chown(dir, pastaUser, pastaUser), os.Chmod(w.dir, 0o711))
	}
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(dir, "bench"), "net", fmt.Sprint("-turns=", *netTurns), "-build=false")
	cmd.Env = append(os.Environ(), pastaEnv+"=root", "TMPDIR="+dir, "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	var out, fault bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &fault
	host := engines[0].host // it leads to the world
	if err := host.Do(cmd.Run); err != nil {
		f.row(rowLoopback, "Gbit/s", true).fault(name, fmt.Errorf("%w: %s", err, fault.String()))
		return nil
	}
	var samples map[string][]float64
	if err := json.Unmarshal(out.Bytes(), &samples); err != nil {
		return err
	}
	for _, r := range []struct {
		what, unit string
		more       bool
	}{{rowLoopback, "Gbit/s", true}, {rowRequestsLoopback, "1/s", true}, {rowAttach, "µs", false}, {rowDetach, "µs", false}} {
		for _, v := range samples[r.what] {
			f.row(r.what, r.unit, r.more).add(name, v)
		}
	}
	return nil
}

// pastaRole is what this program does when it was started for it.
func pastaRole() error {
	if os.Getenv(pastaEnv) == "root" {
		return pastaRoot()
	}
	return pastaMeasure()
}

// pastaRoot gives the user a tun device, as most machines do, and becomes the user.
func pastaRoot() error {
	tun := filepath.Join(os.Getenv("TMPDIR"), "tun")
	if err := errors.Join(unix.Mknod(tun, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))), os.Chmod(tun, 0o666), unix.Mount(tun, "/dev/net/tun", "", unix.MS_BIND, "")); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), pastaEnv+"=user")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: pastaUser, Gid: pastaUser}}
	return cmd.Run()
}

// pastaMeasure prints samples as JSON.
func pastaMeasure() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out := map[string][]float64{}
	add := func(what string, v float64) { out[what] = append(out[what], v) }
	for range *netTurns {
		if err := pastaOnce(ctx, add); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// timedPasta takes the times of what netns.Pasta does.
type timedPasta struct {
	*netns.Pasta
	add func(string, float64)
}

func (p timedPasta) Prepare(ctx context.Context, r netns.Request) (netns.Attachment, error) {
	a, err := p.Pasta.Prepare(ctx, r)
	return timedAttachment{a, p.add}, err
}

type timedAttachment struct {
	netns.Attachment
	add func(string, float64)
}

func (a timedAttachment) Attach(ctx context.Context, t netns.Target) error {
	began := time.Now()
	defer func() { a.add(rowAttach, microseconds(time.Since(began))) }()
	return a.Attachment.Attach(ctx, t)
}

func (a timedAttachment) Detach(ctx context.Context) error {
	began := time.Now()
	defer func() { a.add(rowDetach, microseconds(time.Since(began))) }()
	return a.Attachment.Detach(ctx)
}

func pastaOnce(ctx context.Context, add func(string, float64)) (err error) {
	n := &netns.Pasta{Ports: []netns.Port{{Container: 80}, {Container: 5201}}}
	c, err := caisson.New(caisson.WithNetwork(timedPasta{n, add}), caisson.WithoutCgroup(), caisson.WithCommand("iperf3", "-s"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if _, err := c.Start(ctx); err != nil {
		return err
	}
	l, err := c.Listen(ctx, "tcp", ":80")
	if err != nil {
		return err
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello\n")) })}
	go func() { _ = web.Serve(l) }()
	defer web.Close()
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), n.Published()[i].Host)
	}
	var text []byte
	for range 50 { // until the server listens
		if text, err = exec.CommandContext(ctx, "iperf3", iperfArgs(at(1))...).Output(); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("iperf3: %w: %s", err, text)
	}
	rate, err := iperfRate(text)
	if err != nil {
		return err
	}
	if text, err = exec.CommandContext(ctx, "wrk", wrkArgs(at(0))...).Output(); err != nil {
		return fmt.Errorf("wrk: %w: %s", err, text)
	}
	requests, err := wrkRate(text)
	if err != nil {
		return err
	}
	add(rowLoopback, rate)
	add(rowRequestsLoopback, requests)
	return nil
}
