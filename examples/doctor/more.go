package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/netns"
)

// ability is a finding about something that was tried.
func ability(area, name, detail string, err error, remedy string) caisson.Ability {
	a := caisson.Ability{Area: area, Name: name, Answer: caisson.Yes, Detail: detail}
	if err != nil {
		a.Answer, a.Detail, a.Reason, a.Remedy = caisson.No, "", err.Error(), remedy
		var e *caisson.Error
		if errors.As(err, &e) {
			a.Reason = e.Err.Error()
			if e.Remedy != "" {
				a.Remedy = e.Remedy
			}
		}
	}
	return a
}

// networks connects containers: by a bridge, in a network namespace that plays the host and goes again, and for users by pasta.
func networks(ctx context.Context) []caisson.Ability {
	const area = "networks"
	out := []caisson.Ability{ability(area, "bridge", "devices, addresses and rules", withState(func(dir string) error { return tryBridge(ctx, dir) }),
		"run as root, on a kernel with bridges, veth and nftables; ordinary users have pasta")}
	if os.Geteuid() == 0 {
		return out // root has no need of pasta, which gives its privileges up
	}
	return append(out, ability(area, "pasta", pastaCarries(ctx), withState(func(dir string) error {
		return tryNetwork(ctx, &netns.Pasta{StateDir: filepath.Join(dir, "netns")})
	}), "install package passt; /dev/net/tun must be open to the user"))
}

// pastaCarries says what can be expected of pasta. One from before August 2024 is known by an option that it lacks: some packages tell no version.
func pastaCarries(ctx context.Context) string {
	carries := "to the world, and published ports"
	said, _ := exec.CommandContext(ctx, "pasta", "--help").CombinedOutput()
	if !bytes.Contains(said, []byte("--map-guest-addr")) {
		carries += "; an old one, which may lose UDP answers to programs of this machine (see netns.Pasta)"
	}
	return carries
}

// withState gives f a directory for a moment.
func withState(f func(dir string) error) error {
	dir, err := os.MkdirTemp("", "caisson-doctor-")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}

func tryBridge(ctx context.Context, dir string) error {
	host, err := netns.New()
	if err != nil {
		return err
	}
	defer host.Close()
	b, err := netns.NewBridge(netns.BridgeConfig{Name: "doctor", Host: host, StateDir: filepath.Join(dir, "netns")})
	if err != nil {
		return err
	}
	return tryNetwork(ctx, b)
}

func tryNetwork(ctx context.Context, n caisson.Network) error {
	c, err := caisson.New(caisson.WithCommand("true"), caisson.WithNetwork(n))
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Run(ctx)
}

// images looks for the place of the images, and makes a store for a moment.
func images() caisson.Ability {
	detail := ""
	err := withState(func(dir string) error {
		s, err := image.Open(filepath.Join(dir, "images"), image.Options{})
		if err != nil {
			return err
		}
		return s.Close()
	})
	place, perr := image.DefaultDir()
	if perr == nil {
		detail = place + free(place)
	}
	return ability("images", "store", detail, errors.Join(err, perr), "set XDG_DATA_HOME or HOME to a directory of this user's, or name one to image.Open")
}

// free tells how much room is where a directory is, or will be.
func free(dir string) string {
	for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		var st syscall.Statfs_t
		if syscall.Statfs(dir, &st) == nil {
			return fmt.Sprintf(", %d MiB free", st.Bavail*uint64(st.Bsize)>>20)
		}
	}
	return ""
}
