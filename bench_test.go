//go:build linux

package caisson_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

// benchRoot makes a root filesystem with busybox.
func benchRoot(b *testing.B) string {
	b.Helper()
	if os.Getuid() != 0 {
		b.Skip("needs root: the figures are those of a privileged start")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		b.Skip("needs busybox")
	}
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		b.Fatal(err)
	}
	data, err := os.ReadFile(busybox)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "bin", "busybox"), data, 0o755)
	}
	if err == nil {
		err = os.Symlink("busybox", filepath.Join(dir, "bin", "true"))
	}
	if err != nil {
		b.Fatal(err)
	}
	return dir
}

func runOnce(b *testing.B, opts ...caisson.Option) {
	c, err := caisson.New(opts...)
	if err == nil {
		err = errors.Join(c.Run(context.Background()), c.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRun is a container from nothing to nothing: New, Run, Close, with all defaults.
func BenchmarkRun(b *testing.B) {
	root := rootfs.Dir(benchRoot(b))
	b.ReportAllocs()
	for b.Loop() {
		runOnce(b, caisson.WithRootfs(root), caisson.WithCommand("/bin/true"))
	}
}

// BenchmarkRunLimits is the same with limits on memory, CPUs and processes.
func BenchmarkRunLimits(b *testing.B) {
	root := rootfs.Dir(benchRoot(b))
	b.ReportAllocs()
	for b.Loop() {
		runOnce(b, caisson.WithRootfs(root), caisson.WithCommand("/bin/true"), caisson.WithMemory(64<<20), caisson.WithCPUs(0.5), caisson.WithPids(64))
	}
}

// BenchmarkRunWithoutCgroup is the same without a cgroup.
func BenchmarkRunWithoutCgroup(b *testing.B) {
	root := rootfs.Dir(benchRoot(b))
	b.ReportAllocs()
	for b.Loop() {
		runOnce(b, caisson.WithRootfs(root), caisson.WithCommand("/bin/true"), caisson.WithoutCgroup())
	}
}

// BenchmarkRunAgain starts one Container again and again.
func BenchmarkRunAgain(b *testing.B) {
	c, err := caisson.New(caisson.WithRootfs(rootfs.Dir(benchRoot(b))), caisson.WithCommand("/bin/true"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRunParallel starts from as many goroutines as there are processors.
func BenchmarkRunParallel(b *testing.B) {
	root := rootfs.Dir(benchRoot(b))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			runOnce(b, caisson.WithRootfs(root), caisson.WithCommand("/bin/true"))
		}
	})
}

// BenchmarkOutput copies a stream.
func BenchmarkOutput(b *testing.B) {
	root := rootfs.Dir(benchRoot(b))
	b.ReportAllocs()
	for b.Loop() {
		c, err := caisson.New(caisson.WithRootfs(root), caisson.WithCommand("/bin/busybox", "echo", "hello"))
		if err != nil {
			b.Fatal(err)
		}
		out, err := c.Output(context.Background())
		if err := errors.Join(err, c.Close()); err != nil || string(out) != "hello\n" {
			b.Fatalf("%q, %v", out, err)
		}
	}
}

// BenchmarkNew judges the options alone.
func BenchmarkNew(b *testing.B) {
	root := rootfs.Dir("/")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := caisson.New(caisson.WithRootfs(root), caisson.WithCommand("/bin/true")); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkExplain compiles the program and prints it.
func BenchmarkExplain(b *testing.B) {
	c, err := caisson.New(caisson.WithRootfs(rootfs.Dir(benchRoot(b))), caisson.WithCommand("/bin/true"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Explain(context.Background(), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
