package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/caisson-go/caisson/image"
)

// set does the instructions that change no file, but what the image says about its containers.
func (s *stage) set(c instructions.Command) error {
	to := &s.state.settings
	switch c := c.(type) {
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			to.SetEnv(kv.Key, kv.Value)
			s.scope.env.set(kv.Key, kv.Value)
		}
	case *instructions.ArgCommand:
		s.scope.declare(c, s.b.global, s.b.opts.buildArgs)
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			to.SetLabel(kv.Key, kv.Value)
		}
	case *instructions.UserCommand:
		to.User = c.User
	case *instructions.ExposeCommand:
		return s.expose(c.Ports)
	case *instructions.VolumeCommand:
		for _, v := range c.Volumes {
			if v == "" {
				return fmt.Errorf("VOLUME with an empty path")
			}
			if to.Volumes == nil {
				to.Volumes = map[string]struct{}{}
			}
			to.Volumes[v] = struct{}{}
		}
	case *instructions.EntrypointCommand:
		to.Entrypoint = s.commandLine(c.ShellDependantCmdLine)
		if !s.state.cmdSet {
			to.Cmd = nil // the base's goes with the base's entrypoint
		}
	case *instructions.CmdCommand:
		to.Cmd, s.state.cmdSet = s.commandLine(c.ShellDependantCmdLine), true
	case *instructions.ShellCommand:
		to.Shell = c.Shell
	case *instructions.StopSignalCommand:
		return s.stopSignal(c.Signal)
	case *instructions.HealthCheckCommand:
		h := c.Health
		to.Healthcheck = &image.Healthcheck{Test: h.Test, Interval: int64(h.Interval), Timeout: int64(h.Timeout), StartPeriod: int64(h.StartPeriod),
			StartInterval: int64(h.StartInterval), Retries: h.Retries}
	case *instructions.OnbuildCommand:
		to.OnBuild = append(to.OnBuild, c.Expression)
	case *instructions.MaintainerCommand:
		to.Author = c.Maintainer
	default:
		return fmt.Errorf("%s is an instruction that this builder does not know", strings.ToUpper(c.Name()))
	}
	return nil
}

// defaultShell runs shell forms unless SHELL says otherwise.
var defaultShell = []string{"/bin/sh", "-c"}

func (s *stage) shell() []string {
	if len(s.state.settings.Shell) > 0 {
		return s.state.settings.Shell
	}
	return defaultShell
}

// commandLine is what CMD and ENTRYPOINT mean: a list as it is, or a line for the shell.
func (s *stage) commandLine(l instructions.ShellDependantCmdLine) []string {
	if !l.PrependShell {
		return l.CmdLine
	}
	return append(append([]string{}, s.shell()...), strings.Join(l.CmdLine, " "))
}

func (s *stage) expose(words []string) error {
	to := &s.state.settings
	for _, w := range words {
		l, err := s.scope.words(w)
		if err != nil {
			return err
		}
		for _, text := range l {
			ports, err := parsePorts(text)
			if err != nil {
				return err
			}
			for _, p := range ports {
				if to.ExposedPorts == nil {
					to.ExposedPorts = map[string]struct{}{}
				}
				to.ExposedPorts[p] = struct{}{}
			}
		}
	}
	return nil
}

// parsePorts reads PORT or FIRST-LAST, with /tcp, /udp or /sctp.
func parsePorts(text string) ([]string, error) {
	numbers, proto, has := strings.Cut(text, "/")
	if !has {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	lo, hi, isRange := strings.Cut(numbers, "-")
	first, err := strconv.ParseUint(lo, 10, 16)
	last, lerr := first, error(nil)
	if isRange {
		last, lerr = strconv.ParseUint(hi, 10, 16)
	}
	if err != nil || lerr != nil || first > last || proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fmt.Errorf("EXPOSE %s: want PORT or FIRST-LAST, from 0 to 65535, with /tcp, /udp or /sctp", text)
	}
	var out []string
	for p := first; p <= last; p++ {
		out = append(out, fmt.Sprintf("%d/%s", p, proto))
	}
	return out, nil
}

// stopSignal takes a name or a number: what package image takes, asked here so that the error has a line.
func (s *stage) stopSignal(name string) error {
	doc, err := json.Marshal(map[string]any{"config": map[string]string{"StopSignal": name}})
	if err == nil {
		_, err = image.ParseConfig(doc)
	}
	if err != nil || name == "" {
		return fmt.Errorf("STOPSIGNAL: %q is no signal; want a name such as SIGQUIT, or a number from 1 to 64", name)
	}
	s.state.settings.StopSignal = name
	return nil
}
