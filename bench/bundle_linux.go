package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/rootfs"
)

type bundleKey struct {
	engine, payload string
	cgroup          bool
}

type object = map[string]any

// writeBundles writes an OCI bundle for each runtime, payload and kind of cgroup.
func (w *workspace) writeBundles() (map[bundleKey]string, error) {
	all := map[bundleKey]string{}
	for _, engine := range []string{"crun", "runc"} {
		for _, payload := range []string{payloadT0, payloadBusybox, payloadProbe} {
			for _, cgroup := range []bool{true, false} {
				k := bundleKey{engine, payload, cgroup}
				dir := filepath.Join(w.dir, "bundles", engine+"-"+filepath.Base(payload)+"-"+word(cgroup))
				if err := w.writeBundle(dir, k); err != nil {
					return nil, err
				}
				all[k] = dir
			}
		}
	}
	return all, nil
}

func capabilityNames() (names []string) {
	for c := caps.Cap(0); c < 64; c++ {
		if caps.Default.Has(c) {
			names = append(names, c.String())
		}
	}
	return names
}

// writeBundle writes a bundle whose container is isolated as caisson's default one is.
func (w *workspace) writeBundle(dir string, k bundleKey) error {
	arch, err := seccomp.Native()
	if err != nil {
		return err
	}
	profile, err := seccomp.Default(arch, caps.Default)
	if err != nil {
		return err
	}
	set := capabilityNames()
	linux := object{
		"namespaces":    []object{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}},
		"maskedPaths":   rootfs.DefaultMaskedPaths(),
		"readonlyPaths": rootfs.DefaultReadOnlyPaths(),
		"seccomp":       profile,
	}
	if k.cgroup {
		linux["cgroupsPath"] = "/caisson-bench-" + k.engine
		linux["resources"] = object{"pids": object{"limit": 4096}}
	}
	mount := func(dest, kind, source string, options ...string) object {
		return object{"destination": dest, "type": kind, "source": source, "options": options}
	}
	config := object{
		"ociVersion": "1.0.2",
		"hostname":   "caisson",
		"root":       object{"path": w.root, "readonly": false},
		"process": object{
			"user": object{"uid": 0, "gid": 0}, "cwd": "/", "args": []string{k.payload}, "noNewPrivileges": true,
			"env":          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"},
			"capabilities": object{"bounding": set, "effective": set, "permitted": set},
		},
		"mounts": []object{
			mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
			mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
			mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
			mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
			mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
			mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
		},
		"linux": linux,
	}
	text, err := json.MarshalIndent(config, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
}

// freeHugetlb takes the hugetlb controller away from the v2 hierarchy of a hybrid machine, as long as the bench runs:
// crun refuses such machines while v2 has any controller. A helper mounts a v1 hierarchy in a mount namespace of its
// own, so that the machine's own mounts stay as they are.
func (w *workspace) freeHugetlb() error {
	on, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers")
	if err != nil || !strings.Contains(string(on), "hugetlb") {
		return nil
	}
	dir := filepath.Join(w.dir, "hugetlb")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", `mount -t cgroup -o hugetlb cgroup "$0" && echo ready && read x; umount "$0"`, dir)
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	end := func() error {
		io.WriteString(in, "\n")
		in.Close()
		return c.Wait()
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("no v1 hierarchy for hugetlb could be mounted: %w", end())
	}
	w.undo = append(w.undo, end)
	return nil
}
