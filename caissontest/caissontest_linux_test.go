package caissontest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/caissontest"
	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/rootfs"
)

// limited says what a program that never ends by itself ends by.
func TestPrograms(t *testing.T) {
	caissontest.NoLeaks(t)
	long := strings.Repeat("0123456789", 2000)
	tests := []struct {
		name   string
		opts   []caisson.Option
		out    string
		code   int
		reason caisson.Reason
	}{
		{"true", nil, "", 0, caisson.ReasonExited},
		{"false", nil, "", 1, caisson.ReasonExited},
		{"cat", []caisson.Option{caisson.WithStdin(strings.NewReader(long))}, long, 0, caisson.ReasonExited},
		{"pause", []caisson.Option{caisson.WithTimeout(50 * time.Millisecond)}, "", -1, caisson.ReasonTimeout},
		{"spin", []caisson.Option{caisson.WithTimeout(50 * time.Millisecond)}, "", -1, caisson.ReasonTimeout},
		{"seven", nil, "", 7, caisson.ReasonExited},
		{"long", nil, long, 3, caisson.ReasonExited},
	}
	files := []rootfs.File{
		caissontest.Program("/bin/seven", caissontest.Exit(7)),
		caissontest.Program("/bin/long", caissontest.Print(long, 3)),
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := append([]caisson.Option{caissontest.Rootfs(files...), caisson.WithCommand("/bin/" + tt.name)}, tt.opts...)
			out, res := caissontest.Run(t, opts...)
			if out != tt.out || res.Reason != tt.reason || tt.code >= 0 && res.ExitCode != tt.code {
				t.Errorf("%.40q, %v, %v; want %.40q, %d, %v", out, res, res.Reason, tt.out, tt.code, tt.reason)
			}
		})
	}
}

func TestFlood(t *testing.T) {
	_, res := caissontest.Run(t, caissontest.Rootfs(), caisson.WithCommand("/bin/flood"))
	if res.Reason != caisson.ReasonOutputLimit {
		t.Errorf("ended with %v", res.Reason)
	}
}

func TestEat(t *testing.T) {
	caissontest.NeedLimits(t, cgroups.Memory)
	_, res := caissontest.Run(t, caissontest.Rootfs(), caisson.WithMemory(32<<20), caisson.WithCommand("/bin/eat"))
	if res.Reason != caisson.ReasonOOM {
		t.Errorf("ended with %v", res)
	}
}

func TestFork(t *testing.T) {
	caissontest.NeedLimits(t, cgroups.Pids)
	_, res := caissontest.Run(t, caissontest.Rootfs(), caisson.WithPids(20), caisson.WithTimeout(500*time.Millisecond), caisson.WithCommand("/bin/fork"))
	if res.Reason != caisson.ReasonTimeout {
		t.Errorf("ended with %v, %+v", res.Reason, res)
	}
}

func TestUsersOfTheRootfs(t *testing.T) {
	c := caissontest.Start(t, caissontest.Rootfs(), caisson.WithCommand("/bin/pause"))
	root, err := c.Root()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u, err := rootfs.LookupUser(root, "user")
	if err != nil || u.UID != 1000 {
		t.Errorf("%+v, %v", u, err)
	}
	info, err := root.Stat("/tmp")
	if err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v", info, err)
	}
	if err := c.Stop(context.Background(), 0); err != nil {
		t.Error(err)
	}
}
