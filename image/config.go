package image

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is what an image says about the containers made of it. It is plain data that a stranger wrote: labels and
// annotations mean nothing to this library, and a user or directory is resolved by who starts the container, inside its
// root filesystem.
type Config struct {
	// Platform is what the image was made for.
	Platform ocispec.Platform
	// Entrypoint and Cmd are the command: see [Config.Process].
	Entrypoint, Cmd []string
	// Env are "KEY=value" strings.
	Env []string
	// User is "user", "user:group", numbers or names; empty means root.
	User string
	// WorkingDir is absolute; empty means /.
	WorkingDir string
	// StopSignal is a name such as SIGQUIT or a number; empty means SIGTERM.
	StopSignal string
	// ExposedPorts are such as "80/tcp", sorted.
	ExposedPorts []string
	// Volumes are directories whose content is meant to outlive the container, sorted; see [Store.Volumes].
	Volumes []string
	// Labels are for people and their tools.
	Labels map[string]string
	// Healthcheck may be nil.
	Healthcheck *Healthcheck
	// Shell is what lines of shell run in, such as that of a health check; empty means /bin/sh -c. Docker's extension.
	Shell []string
	// DiffIDs are the digests of the uncompressed layers, the lowest first.
	DiffIDs []string
	// Spec is the whole document as it was read, with author, times and history.
	Spec ocispec.Image
}

// Healthcheck is Docker's extension of the image config. Times are in nanoseconds, zero meaning the default of whoever runs
// the check.
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", args...} or {"CMD-SHELL", line}; empty means that of the parent image. See [Healthcheck.Command].
	Test          []string `json:",omitempty"`
	Interval      int64    `json:",omitempty"`
	Timeout       int64    `json:",omitempty"`
	StartPeriod   int64    `json:",omitempty"`
	StartInterval int64    `json:",omitempty"`
	Retries       int      `json:",omitempty"`
}

// Command returns what the check is to execute inside, of CMD-SHELL by way of shell, which is the image's [Config.Shell]; empty means
// /bin/sh -c. It returns nil where nothing is to be asked: for {"NONE"}, an empty Test and a nil h. Another form, a missing command and null
// bytes are an error that matches [ErrDocument]. How often to ask is said by the other fields, which may be negative in an image.
func (h *Healthcheck) Command(shell []string) ([]string, error) {
	if h == nil || len(h.Test) == 0 {
		return nil, nil
	}
	kind, args := h.Test[0], h.Test[1:]
	switch {
	case kind == "NONE":
		return nil, nil
	case kind == "CMD" && len(args) > 0 && args[0] != "":
		args = slices.Clone(args)
	case kind == "CMD-SHELL" && len(args) == 1:
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		args = append(slices.Clone(shell), args[0])
	default:
		return nil, because(ErrDocument, "health check: %q is neither NONE, CMD with a command, nor CMD-SHELL with a line", clip(strings.Join(h.Test, " ")))
	}
	for _, a := range args {
		if strings.ContainsRune(a, 0) {
			return nil, because(ErrDocument, "health check: null byte in %q", clip(a))
		}
	}
	return args, nil
}

// Overrides are what the user of an image says about the process, as with docker run.
type Overrides struct {
	// Entrypoint replaces that of the image if it is not nil; the image's Cmd counts no more then.
	Entrypoint []string
	// Args replace the image's Cmd if there are any.
	Args []string
	// Env are "KEY=value" strings that add to the image's; equal keys win over them.
	Env []string
	// User and Dir replace those of the image where they are not empty.
	User, Dir string
}

// Process is what a container is to run.
type Process struct {
	// Args are the command and its arguments; empty if neither image nor user name a command.
	Args []string
	// Env are "KEY=value" strings, each key once.
	Env []string
	// Dir is an absolute, clean path. Docker makes it where it is missing.
	Dir string
	// User is as in [Config]; never empty.
	User string
	// StopSignal is the number of the signal that asks the process to end.
	StopSignal int
}

// ParseConfig reads the config of an image. Errors match [ErrDocument].
func ParseConfig(data []byte) (*Config, error) {
	if len(data) > maxConfig {
		return nil, because(ErrDocument, "config of %d bytes; at most %d", len(data), maxConfig)
	}
	keys, err := topKeys(data)
	if err != nil {
		return nil, err
	}
	for _, k := range []string{"manifests", "layers", "fsLayers"} {
		if _, ok := keys[k]; ok {
			return nil, because(ErrDocument, "a config with %q", k)
		}
	}
	var doc struct {
		Config struct {
			Healthcheck *Healthcheck
			Shell       []string
		} `json:"config"`
	}
	c := &Config{}
	if err := json.Unmarshal(data, &c.Spec); err != nil {
		return nil, because(ErrDocument, "config: %v", err)
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, because(ErrDocument, "config: %v", err)
	}
	in := c.Spec.Config
	c.Platform, c.Entrypoint, c.Cmd, c.Env = c.Spec.Platform, in.Entrypoint, in.Cmd, in.Env
	c.User, c.WorkingDir, c.StopSignal, c.Labels = in.User, in.WorkingDir, in.StopSignal, in.Labels
	c.ExposedPorts, c.Volumes, c.Healthcheck, c.Shell = sortedKeys(in.ExposedPorts), sortedKeys(in.Volumes), doc.Config.Healthcheck, doc.Config.Shell
	for _, d := range c.Spec.RootFS.DiffIDs {
		if _, err := ParseDigest(d.String()); err != nil {
			return nil, err
		}
		c.DiffIDs = append(c.DiffIDs, d.String())
	}
	return c, c.check()
}

// check refuses what no process can have.
func (c *Config) check() error {
	for _, s := range slices.Concat(c.Entrypoint, c.Cmd, c.Env, c.Volumes, []string{c.User, c.WorkingDir, c.StopSignal}) {
		if strings.ContainsRune(s, 0) {
			return because(ErrDocument, "config: null byte in %q", clip(s))
		}
	}
	for _, e := range c.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return because(ErrDocument, "config: %q is no environment variable", clip(e))
		}
	}
	if c.WorkingDir != "" && !path.IsAbs(c.WorkingDir) {
		return because(ErrDocument, "config: the working directory %q is not absolute", clip(c.WorkingDir))
	}
	if strings.ContainsAny(c.User, "\n\r") {
		return because(ErrDocument, "config: the user %q has a line break", clip(c.User))
	}
	if _, ok := signalNumber(c.StopSignal); !ok {
		return because(ErrDocument, "config: %q is no signal", clip(c.StopSignal))
	}
	if len(c.DiffIDs) > maxLayers {
		return because(ErrDocument, "config: %d layers; at most %d", len(c.DiffIDs), maxLayers)
	}
	return nil
}

// Process merges the image's wishes with the user's as Docker does: Args replace Cmd; an Entrypoint of the user's drops the
// image's Cmd too; variables of the user replace equal ones of the image.
func (c *Config) Process(o Overrides) Process {
	p := Process{User: "0:0", Dir: "/"}
	entry, cmd := c.Entrypoint, c.Cmd
	if o.Entrypoint != nil {
		entry, cmd = o.Entrypoint, nil
	}
	if len(o.Args) > 0 {
		cmd = o.Args
	}
	p.Args = slices.Concat(entry, cmd)
	at := map[string]int{}
	for _, e := range slices.Concat(c.Env, o.Env) {
		k, _, _ := strings.Cut(e, "=")
		if i, ok := at[k]; ok {
			p.Env[i] = e
			continue
		}
		at[k] = len(p.Env)
		p.Env = append(p.Env, e)
	}
	for _, u := range []string{c.User, o.User} {
		if u != "" {
			p.User = u
		}
	}
	for _, d := range []string{c.WorkingDir, o.Dir} {
		if d != "" {
			p.Dir = path.Clean("/" + d)
		}
	}
	p.StopSignal, _ = signalNumber(c.StopSignal)
	return p
}

func sortedKeys(m map[string]struct{}) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// signals are the numbers of Linux on every architecture that this library supports; others can be given as numbers.
var signals = map[string]int{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12,
	"PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23,
	"XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "RTMIN": 34, "RTMAX": 64,
}

// signalNumber reads SIGTERM, TERM, 15, SIGRTMIN+3, RTMAX-1; nothing is SIGTERM.
func signalNumber(s string) (int, bool) {
	if s == "" {
		return 15, true
	}
	if n, ok := smallNumber(s); ok {
		return n, n >= 1 && n <= 64
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	base, off, sign := name, 0, 1
	if i := strings.IndexAny(name, "+-"); i > 0 && (name[:i] == "RTMIN" || name[:i] == "RTMAX") {
		n, ok := smallNumber(name[i+1:])
		if !ok {
			return 0, false
		}
		if name[i] == '-' {
			sign = -1
		}
		base, off = name[:i], n*sign
	}
	n, ok := signals[base]
	n += off
	return n, ok && n >= 1 && n <= 64 && (off == 0 || n >= 34)
}

func smallNumber(s string) (int, bool) {
	if len(s) == 0 || len(s) > 3 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
