package caisson

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// A container that is well, then is not, then is again.
func TestHealth(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, sh("while :; do sleep 1; done"), WithHealthCheck(HealthCheck{
		Command: []string{"/bin/sh", "-c", "echo checked; ! test -e /tmp/ill"}, Interval: 10 * time.Millisecond, Retries: 2}))
	if h := c.Health(); h.Status != HealthNone {
		t.Error(h)
	}
	l := listen(ctx, c)
	if _, err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	await := func(want HealthStatus) {
		t.Helper()
		if !testutil.Eventually(testTime, func() bool { return c.Health().Status == want }) {
			t.Fatalf("not %v: %+v", want, c.Health())
		}
	}
	do := func(args ...string) {
		t.Helper()
		p, err := c.Exec(ctx, WithCommand(args[0], args[1:]...))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := p.Wait(ctx); err != nil || !r.Success() {
			t.Fatal(r, err)
		}
	}
	await(HealthHealthy)
	do("/bin/touch", "/tmp/ill")
	await(HealthUnhealthy)
	h := c.Health()
	if last := h.Results[len(h.Results)-1]; h.FailingStreak < 2 || last.ExitCode != 1 || last.Output != "checked\n" || len(h.Results) > maxHealthResults {
		t.Errorf("%+v", h)
	}
	do("/bin/rm", "/tmp/ill")
	await(HealthHealthy)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-l.done
	var told []string
	for _, e := range l.list {
		if e.Kind == EventHealth {
			told = append(told, e.Detail)
		}
	}
	if got := strings.Join(told, " "); got != "healthy unhealthy healthy" {
		t.Error(got)
	}
}

// A check that hangs is killed, and one that does not exist has failed; both say so.
func TestHealthFails(t *testing.T) {
	for name, command := range map[string][]string{"timed out": {"/bin/sleep", "1000"}, "not found": {"/bin/none"}} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			c, _ := start(t, testContext(t), WithCommand("/bin/sleep", "1000"), WithHealthCheck(HealthCheck{
				Command: command, Interval: time.Millisecond, Timeout: 2 * time.Second, Retries: 1}))
			if !testutil.Eventually(testTime, func() bool { return c.Health().Status == HealthUnhealthy }) {
				t.Fatalf("%+v", c.Health())
			}
			if r := c.Health().Results[0]; r.ExitCode == 0 || r.Err == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestHealthNote(t *testing.T) {
	h := &health{h: Health{Status: HealthStarting}}
	for i, s := range []struct {
		code   int
		counts bool
		want   HealthStatus
		streak int
	}{
		{1, false, HealthStarting, 0}, {1, true, HealthStarting, 1}, {0, false, HealthHealthy, 0}, {1, false, HealthHealthy, 1},
		{1, false, HealthUnhealthy, 2}, {2, true, HealthUnhealthy, 3}, {0, true, HealthHealthy, 0},
	} {
		if got, _ := h.note(HealthResult{ExitCode: s.code}, 2, s.counts); got != s.want || h.h.FailingStreak != s.streak {
			t.Errorf("%d: %v, %d", i, got, h.h.FailingStreak)
		}
	}
	if len(h.h.Results) != maxHealthResults {
		t.Error(len(h.h.Results))
	}
}

func TestHealthInvalid(t *testing.T) {
	for _, o := range []Option{
		WithHealthCheck(HealthCheck{}),
		WithHealthCheck(HealthCheck{Command: []string{"a\x00"}}),
		WithHealthCheck(HealthCheck{Command: []string{"a"}, Timeout: -1}),
		WithHealthCheck(HealthCheck{Command: []string{"a"}, Retries: -1}),
		WithHealthCheck(HealthCheck{Command: []string{"a"}, TCP: "127.0.0.1:1"}),
		WithHealthCheck(HealthCheck{Command: []string{"a"}, End: true}),
		WithHealthCheck(HealthCheck{TCP: "example.org:1"}),
		WithHealthCheck(HealthCheck{TCP: "127.0.0.1"}),
		WithHealthCheck(HealthCheck{HTTP: "https://127.0.0.1"}),
		WithHealthCheck(HealthCheck{HTTP: "http://127.0.0.1/a b"}),
		WithHealthCheck(HealthCheck{HTTP: "http://u@127.0.0.1/"}),
		Options(WithHealthCheck(HealthCheck{Command: []string{"a"}}), WithID("x"), WithDetached(true)),
	} {
		var oe *OptionError
		if _, err := New(WithCommand("/bin/true"), o); !errors.As(err, &oe) || oe.Option != "WithHealthCheck" {
			t.Error(err)
		}
	}
}

// serve answers every connection inside the container with what answer returns, until the test ends.
func serve(t *testing.T, c *Container, answer func() string) (address string) {
	t.Helper()
	l, err := c.Listen(testContext(t), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if line == "\r\n" {
						break
					}
				}
				if a := answer(); a == "hang" {
					_, _ = r.ReadByte()
				} else {
					_, _ = io.WriteString(conn, a)
				}
			})
		}
	})
	return l.Addr().String()
}

// By TCP and HTTP a server inside is asked, whatever it answers.
func TestHealthDial(t *testing.T) {
	noLeaks(t)
	c, _ := start(t, testContext(t), WithCommand("/bin/sleep", "1000"))
	var answer, asked atomic.Value
	address := serve(t, c, func() string { asked.Load().(func())(); return answer.Load().(string) })
	for _, s := range []struct{ answer, err, output string }{
		{"HTTP/1.1 200 OK\r\n\r\nhello", "", "HTTP/1.1 200"},
		{"HTTP/1.0 302 Found\r\n\r\n", "", "302"},
		{"HTTP/1.1 204\r\n", "", ""},
		{"HTTP/1.1 500 Oh\r\n\r\nwhy", "status 500", "why"},
		{"HTTP/1.1 100 Continue\r\n\r\n", "status 100", ""},
		{"SSH-2.0\r\n", "not HTTP", ""},
		{"", "no answer", ""},
		{strings.Repeat("x", 100000), "no answer", "xxx"},
		{"hang", "no answer", ""},
	} {
		ctx, cancel := context.WithCancel(testContext(t))
		asked.Store(func() {
			if s.answer == "hang" {
				cancel()
			}
		})
		answer.Store(s.answer)
		r := c.askOnce(ctx, HealthCheck{HTTP: "http://" + address + "/health?x"}.filled())
		cancel()
		if (r.ExitCode == 0) != (s.err == "") || !strings.Contains(r.Err, s.err) || !strings.Contains(r.Output, s.output) || len(r.Output) > maxHealthOutput {
			t.Errorf("%.20q: %+v", s.answer, r)
		}
	}
	for target, code := range map[string]int{address: 0, "127.0.0.1:1": 1} {
		if r := c.askOnce(testContext(t), HealthCheck{TCP: target}.filled()); r.ExitCode != code || (r.Err == "") != (code == 0) {
			t.Errorf("%s: %+v", target, r)
		}
	}
}

// An unhealthy container is started again if that is wanted, and is healthy again then.
func TestHealthEnd(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	c := newContainer(t, WithCommand("/bin/sleep", "1000"), WithRestart(RestartPolicy{Mode: RestartOnFailure, Backoff: soon}),
		WithHealthCheck(HealthCheck{TCP: "127.0.0.1:1", Interval: time.Millisecond, Retries: 2, End: true}))
	l := listen(ctx, c)
	p, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(ctx); err != nil || r.Reason != ReasonUnhealthy {
		t.Error(r, err)
	}
	if !testutil.Eventually(testTime, func() bool { return c.RestartCount() > 1 }) {
		t.Error("not restarted")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-l.done
	if got := l.kinds(); !strings.Contains(got, "health exited started restarted") && !strings.Contains(got, "health exited restarted") {
		t.Error(got)
	}
}

// FuzzStatusLine: an answer is a status from 100 to 999, or none.
func FuzzStatusLine(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n"))
	f.Add([]byte("HTTP/1.1 +20\r\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if n, err := parseStatusLine(line); err == nil && (n < 100 || n > 999) {
			t.Fatal(n)
		}
	})
}

// FuzzHTTPTarget: what is sent is one request, to whom Dial can connect.
func FuzzHTTPTarget(f *testing.F) {
	for _, u := range []string{"http://localhost", "http://[::1]:80/a?b", "http://127.0.0.1?x", "http://a@b/", "https://x", "http://127.0.0.1:1/ HTTP/1.0\r\n"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, url string) {
		target, err := parseHTTP(url)
		if err != nil {
			return
		}
		if strings.ContainsAny(target.path+target.host, " \r\n") || target.path[0] != '/' {
			t.Fatalf("%+v", target)
		}
		if _, err := parseIP(context.Background(), "tcp", target.address, true); err != nil {
			t.Fatal(err)
		}
	})
}
