package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

// judged measures the judge of the examples, asked over HTTP, beside its library alone: programs per second and how long one
// takes, with the output captured and all limits. Both are measured in turns, several times.
func judged(w *workspace) error {
	n, clients := max(*rounds*10, 100), 2*runtime.NumCPU()
	service, err := w.startJudge(clients)
	if err != nil {
		return err
	}
	pool, err := caisson.NewPool(caisson.PoolConfig{Size: 2 * clients, Parallel: runtime.NumCPU(), Recycle: true}, judgeRecipe(w.root)...)
	if err != nil {
		return err
	}
	w.undo = append(w.undo, pool.Close)
	kinds := []struct {
		name string
		run  func() error
	}{
		{"library alone", func() error { return judgeByLibrary(pool) }},
		{"over HTTP", service.judge},
	}
	second, err := w.startFloor()
	if err != nil {
		return err
	}
	floors := []*floorProcess{w.floor, second}
	var floor []float64 // what the machine gives at that time
	rates, times := make([][]float64, len(kinds)), make([][]float64, len(kinds))
	for round := range 6 { // the first is to warm up
		r, err := floorRate(floors, "A", true, n)
		if err != nil {
			return err
		}
		floor = append(floor, r)
		for i, k := range kinds {
			rate, took, err := load(clients, n, k.run)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			if round > 0 {
				rates[i], times[i] = append(rates[i], rate), append(times[i], took...)
			}
		}
	}
	var text strings.Builder
	data := map[string]any{}
	fmt.Fprintf(&text, "| judge, %d at a time | programs per second, median (best) of 5 × %d | median, ms | p90 | p99 |\n|---|---|---|---|---|\n", clients, n)
	for i, k := range kinds {
		r, s := summarize(rates[i]), summarize(times[i])
		fmt.Fprintf(&text, "| %s | %.0f (%.0f) | %.1f | %.1f | %.1f |\n", k.name, r.Median, slices.Max(rates[i]), s.Median/1e3, s.P90/1e3, s.P99/1e3)
		data[k.name] = map[string]any{"rates": rates[i], "times": s}
	}
	a, b, f := summarize(rates[0]).Median, summarize(rates[1]).Median, summarize(floor[1:]).Median
	data["floor A, 2 starters"] = floor[1:]
	fmt.Fprintf(&text, "| floor A, 2 starters, nothing captured or limited | %.0f (%.0f) | | | |\n", f, slices.Max(floor[1:]))
	fmt.Fprintf(&text, "\nOver HTTP ÷ library alone: %.2f (should be ≥ 0.85); over HTTP should be ≥ 600 on two processors. Over HTTP ÷ floor A: %.2f\n", b/a, b/f)
	fmt.Print(text.String())
	return w.keep("judge", text.String(), data)
}

// judgeRecipe is what the judge gives all programs: see its recipe.
func judgeRecipe(root string) []caisson.Option {
	return []caisson.Option{
		caisson.WithRootfs(rootfs.Dir(root)), caisson.WithReadOnlyRoot(true), caisson.WithoutDefaultMounts(), caisson.WithMount(rootfs.MinimalMounts()...),
		caisson.WithMount(rootfs.TmpfsMount("/w", 64<<20), rootfs.TmpfsMount("/tmp", 64<<20)),
		caisson.WithCapabilities(), caisson.WithDir("/w"), caisson.WithEnv("HOME=/w", "LANG=C.UTF-8"), caisson.WithHostname("judge"),
		caisson.WithMemory(128 << 20), caisson.WithPids(32), caisson.WithWaitDelay(5 * time.Second),
	}
}

func judgeByLibrary(pool *caisson.Pool) error {
	var stdout, stderr bytes.Buffer
	r, err := pool.Run(context.Background(), caisson.WithCommand(payloadT0), caisson.WithStdout(&stdout), caisson.WithStderr(&stderr), caisson.WithOutputLimit(64<<10),
		caisson.WithTimeout(6*time.Second), caisson.WithCPUTime(2*time.Second), caisson.WithMemory(128<<20), caisson.WithPids(32), caisson.WithStdin(strings.NewReader("")))
	if err == nil && !r.Success() {
		err = errors.New(r.String())
	}
	return err
}

// load calls run from several goroutines, n times in all, and returns calls per second and the microseconds of each.
func load(clients, n int, run func() error) (rate float64, took []float64, err error) {
	each := n / clients
	all := make([][]float64, clients)
	errs := make([]error, clients)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range clients {
		wg.Go(func() {
			for range each {
				at := time.Now()
				if errs[i] = run(); errs[i] != nil {
					return
				}
				all[i] = append(all[i], microseconds(time.Since(at)))
			}
		})
	}
	wg.Wait()
	rate = float64(each*clients) / time.Since(began).Seconds()
	for _, a := range all {
		took = append(took, a...)
	}
	return rate, took, errors.Join(errs...)
}

// judgeService is the judge of the examples.
type judgeService struct {
	url    string
	client *http.Client
}

// startJudge builds and starts it.
func (w *workspace) startJudge(clients int) (*judgeService, error) {
	src, err := sourceDir()
	if err != nil {
		return nil, err
	}
	program := filepath.Join(w.bin, "judge")
	if *build {
		c := exec.Command("go", "build", "-trimpath", "-o", program, "../examples/judge")
		c.Dir, c.Env = src, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the judge: %w\n%s", err, out)
		}
	}
	cmd := exec.Command(program, "-listen", "127.0.0.1:0", "-rootfs", w.root, "-parallel", fmt.Sprint(clients), "-queue", "1000")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.undo = append(w.undo, func() error { return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()) })
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		return nil, fmt.Errorf("the judge says %q: %v", line, err)
	}
	return &judgeService{url + "/run", &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}}, nil
}

// judge asks for one program to be run.
func (s *judgeService) judge() error {
	resp, err := s.client.Post(s.url, "application/json", strings.NewReader(`{"args": ["`+payloadT0+`"]}`))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var a struct{ Verdict string }
	if err := json.Unmarshal(b, &a); err != nil || a.Verdict != "accepted" {
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	return nil
}
