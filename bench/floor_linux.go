package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caisson-go/caisson"
)

// floorProcess is the C process: it makes containers by the two lists of system calls, and runs other programs.
type floorProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (w *workspace) startFloor() (*floorProcess, error) {
	args, err := w.floorArgs()
	if err != nil {
		return nil, err
	}
	stage := filepath.Join(w.dir, "stage")
	if err := os.MkdirAll(stage, 0o700); err != nil {
		return nil, err
	}
	f := &floorProcess{cmd: exec.Command(filepath.Join(w.bin, "floor"), append(args, "-root", w.root, "-stage", stage, "-filter", w.filter)...)}
	f.cmd.Stderr = os.Stderr
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	f.out = bufio.NewReader(out)
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	w.undo = append(w.undo, f.close)
	return f, nil
}

func (f *floorProcess) close() error {
	f.in.Close()
	return f.cmd.Wait()
}

// ask sends a request and returns the first line of the answer.
func (f *floorProcess) ask(request string) (string, error) {
	if _, err := io.WriteString(f.in, request+"\n"); err != nil {
		return "", err
	}
	line, err := f.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the floor's process ended: %w", err)
	}
	line = strings.TrimSpace(line)
	if msg, bad := strings.CutPrefix(line, "! "); bad {
		return "", fmt.Errorf("%s: %s", strings.ReplaceAll(request, "\t", " "), msg)
	}
	return line, nil
}

// total asks for a start and returns its whole time in microseconds.
func (f *floorProcess) total(request string) (float64, error) {
	line, err := f.ask(request)
	if err != nil {
		return 0, err
	}
	_, total, _ := strings.Cut(line, " ")
	return strconv.ParseFloat(total, 64)
}

// text asks for something that answers with lines up to a dot; skip leaves out the line with times.
func (f *floorProcess) text(request string, skip bool) (string, error) {
	line, err := f.ask(request)
	var b strings.Builder
	if !skip {
		b.WriteString(line + "\n")
	}
	for err == nil {
		if line, err = f.out.ReadString('\n'); line == ".\n" {
			break
		}
		b.WriteString(line)
	}
	return b.String(), err
}

// floorArgs derives what the floor has to make from what caisson makes: from what it explains, and from a container
// that runs.
func (w *workspace) floorArgs() ([]string, error) {
	c, err := caisson.New(w.options(payloadPause, true)...)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var text bytes.Buffer
	if err := c.Explain(context.Background(), &text); err != nil {
		return nil, err
	}
	args := explainedArgs(text.String())
	p, err := c.Start(context.Background())
	if err != nil {
		return nil, err
	}
	groups, err := groupArgs(p.Pid())
	if err != nil {
		return nil, err
	}
	capEff, err := statusValue(p.Pid(), "CapEff")
	if err != nil {
		return nil, err
	}
	last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return nil, err
	}
	return append(append(args, groups...), "-caps", "0x"+capEff, "-lastcap", strings.TrimSpace(string(last))), nil
}

var (
	explainedMask = regexp.MustCompile(`(?m)^# mask (/\S+)$`)
	explainedRO   = regexp.MustCompile(`(?m)^# make read-only (/\S+)$`)
	explainedView = regexp.MustCompile(`(?m)^mount\("cgroup", "/sys/fs/cgroup/[^"]+", "cgroup", \S+, "([^"]+)"\)`)
	explainedV2   = regexp.MustCompile(`(?m)"cgroup2"`)
)

func explainedArgs(text string) (args []string) {
	for flag, re := range map[string]*regexp.Regexp{"-mask": explainedMask, "-ro": explainedRO, "-view": explainedView} {
		for _, m := range re.FindAllStringSubmatch(text, -1) {
			args = append(args, flag, m[1])
		}
	}
	if explainedV2.MatchString(text) {
		args = append(args, "-viewv2")
	}
	return args
}

// groupArgs names the directories in which the groups of a running container have been made.
func groupArgs(pid int) (args []string, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(filepath.Base(f[2]), "caisson-") {
			continue
		}
		mountpoint, err := cgroupMount(f[1])
		if err != nil {
			return nil, err
		}
		parent := filepath.Dir(filepath.Join(mountpoint, f[2]))
		kind := "v1," + f[1]
		if f[1] == "" {
			kind = "v2"
			if on, _ := os.ReadFile(filepath.Join(mountpoint, f[2], "cgroup.controllers")); len(on) > 0 {
				kind += "," + strings.Join(strings.Fields(string(on)), ",")
			}
		}
		args = append(args, "-group", kind+":"+parent)
	}
	if args == nil {
		return nil, errors.New("the container is in no group of its own")
	}
	return args, nil
}

// cgroupMount finds where the hierarchy of a list of controllers is mounted; "" is the v2 hierarchy.
func cgroupMount(controllers string) (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(g) < 3 {
			continue
		}
		if controllers == "" && g[0] == "cgroup2" ||
			controllers != "" && g[0] == "cgroup" && slices.Contains(strings.Split(g[2], ","), strings.Split(controllers, ",")[0]) {
			return f[4], nil
		}
	}
	return "", fmt.Errorf("the cgroup hierarchy %q is not mounted", controllers)
}

func statusValue(pid int, key string) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("no %s in the status of a process", key)
}
