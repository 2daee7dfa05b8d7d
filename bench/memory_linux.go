package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/caisson-go/caisson"
)

// usage is what the host program holds.
type usage struct{ heap, goroutines, threads, descriptors int }

func use() (u usage) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, _ := os.ReadDir("/proc/self/fd")
	threads, _ := statusValue(os.Getpid(), "Threads")
	n, _ := strconv.Atoi(threads)
	return usage{int(m.HeapAlloc), runtime.NumGoroutine(), n, len(fds)}
}

// cost is what one running container adds.
type cost struct {
	Heap        float64 `json:"heap_bytes"`
	Goroutines  float64 `json:"goroutines"`
	Threads     float64 `json:"threads"`
	Descriptors float64 `json:"descriptors"`
}

// memory measures what running containers cost the host program.
func memory(w *workspace) error {
	const n = 64
	kinds := []struct {
		name string
		opts []caisson.Option
		goal string
	}{
		{"null device or files as streams", nil, "≤ 16 KiB"},
		{"one copied stream", []caisson.Option{caisson.WithStdout(struct{ io.Writer }{io.Discard})}, "≤ 32 KiB"},
		{"two copied streams", []caisson.Option{caisson.WithStdout(struct{ io.Writer }{io.Discard}), caisson.WithStderr(&strings.Builder{})}, "≤ 48 KiB"},
	}
	if _, err := w.costOf(2, nil); err != nil { // what is made once: keeper, template, caches
		return err
	}
	var text strings.Builder
	data := map[string]cost{}
	fmt.Fprintf(&text, "| one of %d running containers, with | heap, bytes | should be | goroutines | threads | descriptors |\n|---|---|---|---|---|---|\n", n)
	for _, k := range kinds {
		c, err := w.costOf(n, k.opts)
		if err != nil {
			return err
		}
		data[k.name] = c
		fmt.Fprintf(&text, "| %s | %.0f | %s | %.1f | %.2f | %.1f |\n", k.name, c.Heap, k.goal, c.Goroutines, c.Threads, c.Descriptors)
	}
	mib, c, err := w.idle()
	if err != nil {
		return err
	}
	data[fmt.Sprintf("%d idle ones, each", manyIdle)] = c
	fmt.Fprintf(&text, "\n%d idle containers: %.1f MiB more in use by the host program (resident; should be ≤ 32 MiB), %.0f bytes of heap and %.3f threads each.\n",
		manyIdle, mib, c.Heap, c.Threads)
	fmt.Print(text.String())
	return w.keep("memory", text.String(), data)
}

// manyIdle is how many containers are held at a time.
const manyIdle = 1000

// idle measures what many running containers cost together, garbage of their starts included.
func (w *workspace) idle() (mib float64, c cost, err error) {
	debug.FreeOSMemory()
	before, err := resident()
	if err != nil {
		return 0, c, err
	}
	after := 0
	c, err = w.costWith(manyIdle, nil, func() (err error) {
		after, err = resident()
		return err
	})
	return float64(after-before) / 1024, c, err
}

// resident returns the memory of this program that is in use, in KiB.
func resident() (kib int, err error) {
	v, err := statusValue(os.Getpid(), "VmRSS")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSuffix(v, " kB"))
}

func (w *workspace) costOf(n int, opts []caisson.Option) (cost, error) {
	return w.costWith(n, opts, func() error { return nil })
}

// costWith calls look when all have been started.
func (w *workspace) costWith(n int, opts []caisson.Option, look func() error) (cost, error) {
	before := use()
	var all []*caisson.Container
	var errs []error
	for range n {
		c, err := caisson.New(append(w.options(payloadPause, true), opts...)...)
		if err == nil {
			all = append(all, c)
			_, err = c.Start(context.Background())
		}
		errs = append(errs, err)
	}
	errs = append(errs, look())
	after := use()
	for _, c := range all {
		errs = append(errs, c.Close())
	}
	per := func(a, b int) float64 { return float64(b-a) / float64(n) }
	return cost{per(before.heap, after.heap), per(before.goroutines, after.goroutines), per(before.threads, after.threads), per(before.descriptors, after.descriptors)},
		errors.Join(errs...)
}
