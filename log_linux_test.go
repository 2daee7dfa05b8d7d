package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// logged reads a log, one string for each entry.
func logged(t testing.TB, c *Container, o LogOptions) string {
	t.Helper()
	var out []string
	for e, err := range c.Logs(testContext(t), o) {
		if err != nil {
			t.Fatal(err)
		}
		end := ""
		if e.Partial {
			end = "…"
		}
		out = append(out, e.Stream.String()[3:4]+":"+e.Text+end)
	}
	return strings.Join(out, " ")
}

func TestLog(t *testing.T) {
	for _, format := range []LogFormat{LogJSONLines, LogPlain} {
		t.Run(format.String(), func(t *testing.T) {
			noLeaks(t)
			path := filepath.Join(t.TempDir(), "c.log")
			var out, errs buffer
			c := newContainer(t, sh("echo one; echo two >&2; printf three"), WithLog(LogConfig{Path: path, Format: format}), WithStdout(&out), WithStderr(&errs))
			for i := range 2 { // the second start appends
				if err := c.Run(testContext(t)); err != nil {
					t.Fatal(err)
				}
				got := logged(t, c, LogOptions{Tail: 3})
				if !strings.Contains(got, "o:one") || !strings.Contains(got, "e:two") || !strings.HasSuffix(got, "o:three…") {
					t.Errorf("%d: %s", i, got)
				}
			}
			if out.String() != "one\nthreeone\nthree" || errs.String() != "two\ntwo\n" {
				t.Errorf("%q %q", out.String(), errs.String())
			}
			if got := logged(t, c, LogOptions{Streams: []LogStream{LogStderr}}); got != "e:two e:two" {
				t.Error(got)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if got := logged(t, c, LogOptions{}); strings.Count(got, ":") != 6 {
				t.Error(got)
			}
			if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), `{"log":"one\n","stream":"stdout","time":"2`) != (format == LogJSONLines) ||
				strings.Contains(string(b), "Z stdout F one\n") != (format == LogPlain) {
				t.Errorf("%s %v", b, err)
			}
		})
	}
}

// One writer for both streams is written to by one goroutine at a time, a file gets a copy, a terminal is logged, and what
// nobody else wants as well.
func TestLogWithStreams(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var both strings.Builder
	for name, o := range map[string]Option{
		"same": Options(WithStdout(&both), WithStderr(&both)), "file": Options(WithStdout(f), WithStderr(f)),
		"terminal": WithTerminal(0, 0), "none": Options(), "limit": WithOutputLimit(1 << 20),
	} {
		c := newContainer(t, sh("echo out; echo err >&2"), WithLog(LogConfig{Path: filepath.Join(dir, name+".log")}), o)
		if err := c.Run(testContext(t)); err != nil {
			t.Fatal(name, err)
		}
		want := []string{"o:out", "e:err"}
		if name == "terminal" {
			want = []string{"o:out\r", "o:err\r"}
		}
		if got := logged(t, c, LogOptions{}); !strings.Contains(got, want[0]) || !strings.Contains(got, want[1]) {
			t.Errorf("%s: %q", name, got)
		}
	}
	b, err := os.ReadFile(f.Name())
	for _, got := range []string{both.String(), string(b)} {
		if !strings.Contains(got, "out\n") || !strings.Contains(got, "err\n") || err != nil {
			t.Errorf("%q %v", got, err)
		}
	}
}

// A reader follows over rotations and restarts, to the end.
func TestLogFollow(t *testing.T) {
	noLeaks(t)
	c, _ := start(t, testContext(t), sh("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; exit 1"),
		WithLog(LogConfig{Path: filepath.Join(t.TempDir(), "l"), MaxSize: 4096, MaxFiles: 100}),
		WithRestart(RestartPolicy{Mode: RestartOnFailure, MaxRetries: 2, Backoff: soon}))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			n := 0
			for e, err := range c.Logs(testContext(t), LogOptions{Follow: true}) {
				if err != nil || e.Text != fmt.Sprint("line ", n%300) {
					t.Error(n, e, err)
					return
				}
				n++
			}
			if n != 900 {
				t.Error(n)
			}
		})
	}
	wg.Wait()
	if _, err := c.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// A full disk takes nothing from the container: it goes on, and what was lost is told. The disk is a small filesystem of
// another container.
func TestLogDiskFull(t *testing.T) {
	noLeaks(t)
	_, p := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithMount(rootfs.Mount{Target: "/small", Type: rootfs.TypeTmpfs, Size: 16 << 10}))
	path := "/proc/" + strconv.Itoa(p.Pid()) + "/root/small/log"
	if f, err := os.Create(path + "0"); err != nil {
		t.Fatal(err)
	} else {
		f.Close()
	}
	var out buffer
	r0, w0, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r0.Close()
	// The first line is written by itself: what comes together is lost together.
	c := newContainer(t, sh("echo line 0; read x; i=1; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"), WithLog(LogConfig{Path: path}), WithStdout(&out), WithStdin(r0))
	l := listen(testContext(t), c)
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if !testutil.Eventually(testTime, func() bool { return logged(t, c, LogOptions{}) == "o:line 0" }) {
		t.Errorf("logged is %q", logged(t, c, LogOptions{}))
	}
	w0.Close()
	r, err := c.Wait(testContext(t))
	if err != nil || r.LogLost == 0 || strings.Count(out.String(), "\n") != 2000 {
		t.Error(r, err, r.LogLost, strings.Count(out.String(), "\n"))
	}
	if got := strings.Count(logged(t, c, LogOptions{}), ":"); got+int(r.LogLost) != 2000 || got == 0 {
		t.Errorf("%d entries, %d lost", got, r.LogLost)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-l.done
	if got := l.kinds(); !strings.Contains(got, "log-lost") {
		t.Error(got)
	}
}

func TestLogInvalid(t *testing.T) {
	for _, o := range []Option{
		WithLog(LogConfig{}), WithLog(LogConfig{Path: "relative"}), WithLog(LogConfig{Path: "/a/../b"}), WithLog(LogConfig{Path: "/"}),
		WithLog(LogConfig{Path: "/l", Format: 7}), WithLog(LogConfig{Path: "/l", MaxSize: 1}), WithLog(LogConfig{Path: "/l", MaxFiles: -1}),
		WithLog(LogConfig{Path: "/l", MaxFiles: 5000}), Options(WithLog(LogConfig{Path: "/l"}), WithID("x"), WithDetached(true)),
	} {
		var oe *OptionError
		if _, err := New(WithCommand("/bin/true"), o); !errors.As(err, &oe) || oe.Option != "WithLog" {
			t.Error(err)
		}
	}
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/true"), WithLog(LogConfig{Path: filepath.Join(t.TempDir(), "none", "l")}))
	if _, err := c.Start(testContext(t)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := c.StdoutPipe(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for _, o := range []LogOptions{{Follow: true}, {Tail: -1}, {Streams: []LogStream{0}}, {}} {
		n := 0
		for _, err := range c.Logs(context.Background(), o) {
			if n++; err == nil {
				t.Error(o)
			}
		}
		if n != 1 {
			t.Error(o, n)
		}
	}
	c = newContainer(t, WithCommand("/bin/true"))
	for _, err := range c.Logs(context.Background(), LogOptions{}) {
		if !errors.Is(err, ErrState) {
			t.Error(err)
		}
	}
}

// Two containers do not write to one log.
func TestLogBusy(t *testing.T) {
	noLeaks(t)
	log := WithLog(LogConfig{Path: filepath.Join(t.TempDir(), "l")})
	start(t, testContext(t), WithCommand("/bin/sleep", "1000"), log)
	c := newContainer(t, WithCommand("/bin/true"), log)
	if err := c.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "another container") {
		t.Error(err)
	}
}
