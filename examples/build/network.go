package main

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/netns"
)

// networks are what -network can be; the default one depends on who builds.
var networks = []string{"auto", "none", "host", "bridge", "pasta"}

// connect gives a RUN the network that it asks for.
func (s *stage) connect(st *step, r *running, mode instructions.NetworkMode) error {
	kind := s.b.opts.network
	switch {
	case mode == instructions.NetworkNone:
		kind = "none"
	case mode == instructions.NetworkHost && kind != "host":
		return fmt.Errorf("--network=host: the services of this machine are reached by it; allow it with -network host")
	}
	if kind == "auto" {
		kind = autoNetwork(st)
	}
	switch kind {
	case "none":
		return nil
	case "host":
		r.opts = append(r.opts, caisson.WithNamespace(namespaces.Net, namespaces.Host()))
		return hostFiles(r)
	case "pasta":
		r.opts = append(r.opts, caisson.WithNetwork(&netns.Pasta{}))
	case "bridge":
		bridge, err := netns.NewBridge(netns.BridgeConfig{Name: "build"})
		if err != nil {
			return err
		}
		r.opts = append(r.opts, caisson.WithNetwork(&netns.Networks{Endpoints: []netns.Endpoint{{Network: bridge}}}))
	}
	r.hidden = append(r.hidden, "etc/hosts", "etc/hostname", "etc/resolv.conf")
	return nil
}

// autoNetwork is one that reaches the world but not the services of this machine.
func autoNetwork(st *step) string {
	if os.Geteuid() == 0 {
		return "bridge"
	}
	if _, err := exec.LookPath("pasta"); err == nil {
		return "pasta"
	}
	st.note("no network: the program pasta (package passt) is not installed; -network host shares this machine's")
	return "none"
}

// hostFiles lets names be resolved as this machine does it.
func hostFiles(r *running) error {
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		data, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		r.opts = append(r.opts, caisson.WithFile(name, data, 0o644))
		r.hidden = append(r.hidden, name[1:])
	}
	return nil
}
