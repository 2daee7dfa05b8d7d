package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caisson-go/caisson/netns"
)

// maxAnswer bounds what a plugin answers, in bytes.
const maxAnswer = 4 << 20

// call is what a plugin is called with.
type call struct {
	command     string
	containerID string
	netns       string
	ifname      string
	args        string
	path        []string
	lock        *os.File // held as long as the plugin runs; may be nil
}

func (c *call) environment() []string {
	env := []string{"CNI_COMMAND=" + c.command, "CNI_PATH=" + strings.Join(c.path, ":")}
	for _, kv := range [][2]string{{"CNI_CONTAINERID", c.containerID}, {"CNI_NETNS", c.netns}, {"CNI_IFNAME", c.ifname}, {"CNI_ARGS", c.args}} {
		if kv[1] != "" {
			env = append(env, kv[0]+"="+kv[1])
		}
	}
	// Plugins run programs such as iptables.
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return append(env, "PATH="+path)
}

// run executes a plugin and returns what it answers. Its process ends with ctx.
func (c *call) run(ctx context.Context, plugin string, stdin []byte) (json.RawMessage, error) {
	program, err := findPlugin(c.path, plugin)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.WaitDelay = c.environment(), "/", bytes.NewReader(stdin), 5*time.Second
	if c.lock != nil {
		cmd.ExtraFiles = []*os.File{c.lock}
	}
	out, stderr := &bounded{max: maxAnswer}, &tail{max: 2048}
	cmd.Stdout, cmd.Stderr = out, stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil && out.over {
		err = fmt.Errorf("%w: it answered more than %d bytes", netns.ErrInvalid, maxAnswer)
	}
	if err == nil {
		return out.b.Bytes(), nil
	}
	e := &PluginError{Plugin: plugin, Command: c.command, Stderr: strings.TrimSpace(string(stderr.b)), Err: err}
	var said struct {
		Code    uint   `json:"code"`
		Msg     string `json:"msg"`
		Details string `json:"details"`
	}
	if json.Unmarshal(out.b.Bytes(), &said) == nil {
		e.Code, e.Msg, e.Details = said.Code, said.Msg, said.Details
	}
	return nil, e
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	b    bytes.Buffer
	max  int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.b.Len()+len(p) > b.max {
		b.over = true
		return len(p), nil
	}
	return b.b.Write(p)
}

// tail keeps the end.
type tail struct {
	b   []byte
	max int
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-t.max):]
	return len(p), nil
}

// defaultPath is where distributions have plugins.
var defaultPath = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni"}

// findPlugin finds the program of a plugin in the directories.
func findPlugin(path []string, plugin string) (string, error) {
	for _, dir := range path {
		p := filepath.Join(dir, plugin)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", &Error{Op: "find plugin", Object: plugin, Err: fmt.Errorf("%w in %s", netns.ErrNotFound, strings.Join(path, ", ")),
		Remedy: "install the package containernetworking-plugins, or set Options.Path"}
}

// speaks asks a plugin whether it knows a version.
func speaks(ctx context.Context, path []string, plugin, version string) error {
	c := call{command: "VERSION", path: path}
	b, err := c.run(ctx, plugin, []byte(`{"cniVersion":"`+version+`"}`))
	if err != nil {
		return err
	}
	var v struct {
		Supported []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return &PluginError{Plugin: plugin, Command: "VERSION", Err: fmt.Errorf("%w: %w", netns.ErrInvalid, err)}
	}
	if !slices.Contains(v.Supported, version) {
		return &Error{Op: "use plugin", Object: plugin, Err: fmt.Errorf("%w: version %s; it knows %s", netns.ErrUnsupported, version, strings.Join(v.Supported, ", ")),
			Remedy: "set cniVersion to one of those, or update the plugin"}
	}
	return nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errors.Join(netns.ErrInvalid, fmt.Errorf("more than %d bytes", limit))
	}
	return b, err
}
