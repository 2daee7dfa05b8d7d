//go:build linux

package examples_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// service is a judge that serves.
type service struct {
	url string
	cmd *exec.Cmd
	log *lockedBuffer
}

// judgeService starts one, which ends with the test.
func judgeService(t *testing.T, c caller, flags ...string) *service {
	t.Helper()
	s := &service{log: new(lockedBuffer)}
	s.cmd = c.command(t, "judge", append([]string{"-listen", "127.0.0.1:0", "-best-effort", "-parallel", "2", "-pool", "2"}, flags...)...)
	var out lockedBuffer
	s.cmd.Stdout, s.cmd.Stderr = &out, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			if err := s.stop(); err != nil {
				t.Errorf("%v\n%s", err, s.log.String())
			}
		}
	})
	out.await(t, "\n")
	s.url = strings.TrimSpace(strings.TrimPrefix(out.String(), "listening on "))
	return s
}

// stop asks it to end.
func (s *service) stop() error {
	return errors.Join(s.cmd.Process.Signal(syscall.SIGTERM), s.cmd.Wait())
}

// answer is what it says about a program.
type answer struct {
	Verdict, Signal, Stdout, Stderr, Error string
	ExitCode                               int      `json:"exit_code"`
	Wall                                   float64  `json:"wall_ms"`
	CPU                                    *float64 `json:"cpu_ms"`
	Memory                                 *uint64  `json:"memory_bytes"`
	Notes                                  []string
}

// ask posts a value and decodes the answer; it returns the status.
func (s *service) ask(path string, body, into any) (int, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	resp, err := http.Post(s.url+path, "application/json", bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, json.NewDecoder(resp.Body).Decode(into)
}

type request map[string]any

// patient are limits of time that do not decide on a busy machine.
var patient = request{"wall_ms": 60000, "cpu_ms": 30000}

func (s *service) judge(t *testing.T, r request) (a answer) {
	t.Helper()
	if r["limits"] == nil {
		r["limits"] = patient
	}
	status, err := s.ask("/run", r, &a)
	if err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v: %+v\n%s", status, err, a, s.log.String())
	}
	return a
}

func TestJudgeService(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		s := judgeService(t, c)
		limits := func(t *testing.T) { needLimits(t, c) }
		anyway := func(*testing.T) {}
		var v struct{ Languages []string }
		get(t, s.url+"/version", &v)
		for _, tt := range []struct {
			name    string
			r       request
			verdict string
			stdout  string
			need    func(*testing.T)
		}{
			{"accepted", request{"language": "sh", "source": "read n; echo $((n*2))", "stdin": "3\n", "want": "6"}, "accepted", "6\n", anyway},
			{"wrong", request{"language": "sh", "source": "echo 7", "want": "6"}, "wrong answer", "7\n", anyway},
			{"arguments", request{"args": []string{"cat", "d/a"}, "files": map[string]string{"d/a": "a file"}}, "accepted", "a file", anyway},
			{"exit code", request{"language": "sh", "source": "exit 3"}, "runtime error", "", anyway},
			{"no such command", request{"args": []string{"no-such-command"}}, "runtime error", "", anyway},
			{"time", request{"language": "sh", "source": "sleep 60", "limits": request{"wall_ms": 300}}, "time limit exceeded", "", anyway},
			{"output", request{"language": "sh", "source": "while :; do echo x; done", "limits": request{"output_bytes": 10}}, "output limit exceeded", "x\nx\nx\nx\nx\n", anyway},
			{"no writing", request{"language": "sh", "source": "echo x >/x"}, "runtime error", "", anyway},
			{"working directory", request{"language": "sh", "source": "pwd; echo x >x; cat x"}, "accepted", "/w\nx\n", anyway},
			{"network", request{"language": "sh", "source": "cat /proc/self/net/dev | grep -c :"}, "accepted", "1\n", anyway},
			{"machine", request{"language": "sh", "source": "ls /proc/stat /proc/sys /sys/kernel 2>/dev/null; echo end"}, "accepted", "end\n", anyway},
			{"busy", request{"language": "sh", "source": "while :; do :; done", "limits": request{"cpu_ms": 200}}, "time limit exceeded", "", limits},
			{"memory", request{"language": "sh", "source": "x=x; while :; do x=$x$x; done", "limits": request{"memory_bytes": 16 << 20}}, "memory limit exceeded", "", limits},
			{"fork bomb", request{"language": "sh", "source": "f() { f | f & }; f 2>/dev/null; sleep 60", "limits": request{"wall_ms": 1500}}, "time limit exceeded", "", limits},
		} {
			t.Run(tt.name, func(t *testing.T) {
				tt.need(t)
				if a := s.judge(t, tt.r); a.Verdict != tt.verdict || a.Stdout != tt.stdout {
					t.Errorf("%+v; want %s, %q", a, tt.verdict, tt.stdout)
				}
			})
		}
		if slices.Contains(v.Languages, "c") {
			a := s.judge(t, request{"language": "c", "source": "#include <stdio.h>\nint main(void) { int n; scanf(\"%d\", &n); printf(\"%d\\n\", 2*n); }", "stdin": "21", "want": "42\n"})
			if a.Verdict != "accepted" {
				t.Errorf("%+v", a)
			}
			if a := s.judge(t, request{"language": "c", "source": "int main(void) { return missing; }"}); a.Verdict != "compile error" || !strings.Contains(a.Stderr, "missing") {
				t.Errorf("%+v", a)
			}
			if a := s.judge(t, request{"language": "c", "source": "int main(void) { return *(volatile int *)0; }"}); a.Verdict != "runtime error" || a.Signal != "segmentation fault" {
				t.Errorf("%+v", a)
			}
		}
	})
}

func get(t *testing.T, url string, into any) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatalf("%s: %v\n%s", url, err, b)
		}
	}
	return string(b)
}

// Programs that run at the same time, and after one another, see nothing of each other.
func TestJudgeServiceKeepsThemApart(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		s := judgeService(t, c, "-parallel", "4")
		times := 5
		if !c.root() { // each of whose starts may look through all of the host's files
			times = 2
		}
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				for k := range times {
					secret := fmt.Sprintf("secret-%d-%d", i, k)
					var a answer
					status, err := s.ask("/run", request{"language": "sh", "limits": patient, "stdin": secret, "source": `ls -A /tmp /dev/shm; cat /w/* | grep -c secre[t]; ls /proc | grep -c '^[0-9]'
read x; echo $x >/tmp/x; echo $x >/w/x; echo $x >/dev/shm/x; (sleep 30 &) ; echo $x`}, &a)
					if err != nil || status != 200 || a.Verdict != "accepted" {
						t.Errorf("status %d, %v: %+v", status, err, a)
						continue
					}
					if !strings.HasSuffix(a.Stdout, "\n"+secret+"\n") || strings.Count(a.Stdout, "secret") != 1 || !strings.HasPrefix(a.Stdout, "/dev/shm:\n\n/tmp:\n0\n") {
						t.Errorf("%+v", a)
					}
				}
			})
		}
		all.Wait()
	})
}

func TestJudgeServiceBatch(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		s := judgeService(t, c)
		var reqs []request
		for i := range 5 {
			reqs = append(reqs, request{"language": "sh", "limits": patient, "source": "cat", "stdin": fmt.Sprint(i)})
		}
		var list []answer
		if status, err := s.ask("/batch", reqs, &list); err != nil || status != 200 || len(list) != 5 {
			t.Fatalf("status %d, %v: %+v", status, err, list)
		}
		for i, a := range list {
			if a.Verdict != "accepted" || a.Stdout != fmt.Sprint(i) {
				t.Errorf("%d: %+v", i, a)
			}
		}
	})
}

// What is no request for a program is refused, and nothing runs.
func TestJudgeServiceRefuses(t *testing.T) {
	c := caller{os.Getuid(), ownDir(t, os.Getuid())}
	s := judgeService(t, c, "-queue", "0", "-parallel", "1")
	post := func(body, kind, origin, host string) int {
		t.Helper()
		r, err := http.NewRequest("POST", s.url+"/run", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", kind)
		if origin != "" {
			r.Header.Set("Origin", origin)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		if host != "" {
			r.Host = host
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	const ok, kind = `{"args": ["true"], "limits": {"wall_ms": 60000}}`, "application/json"
	for name, tt := range map[string]struct {
		body, kind, origin, host string
		want                     int
	}{
		"good":                {ok, kind, "", "", 200},
		"localhost":           {ok, kind, "", "localhost:1", 200},
		"another site's form": {ok, "text/plain", "", "", 415},
		"another site":        {ok, kind, "https://example.com", "", 403},
		"another name":        {ok, kind, "", "example.com", 421},
		"not JSON":            {"{", kind, "", "", 400},
		"two values":          {ok + ok, kind, "", "", 400},
		"unknown field":       {`{"args": ["true"], "network": true}`, kind, "", "", 400},
		"nothing":             {`{}`, kind, "", "", 400},
		"unknown language":    {`{"language": "cobol"}`, kind, "", "", 400},
		"file outside":        {`{"args": ["true"], "files": {"../x": ""}}`, kind, "", "", 400},
		"absolute file":       {`{"args": ["true"], "files": {"/etc/x": ""}}`, kind, "", "", 400},
		"too much memory":     {`{"args": ["true"], "limits": {"memory_bytes": 1000000000000}}`, kind, "", "", 400},
		"negative time":       {`{"args": ["true"], "limits": {"wall_ms": -1}}`, kind, "", "", 400},
		"NUL byte":            {`{"args": ["true", "\u0000"]}`, kind, "", "", 400},
		"large body":          {`{"args": ["true"], "stdin": "` + strings.Repeat("x", 9<<20) + `"}`, kind, "", "", 413},
	} {
		if got := post(tt.body, tt.kind, tt.origin, tt.host); got != tt.want {
			t.Errorf("%s: status %d, want %d", name, got, tt.want)
		}
	}
	// Two at once are more than one that runs and none that waits.
	var list any
	if status, err := s.ask("/batch", []request{{"args": []string{"true"}}, {"args": []string{"true"}}}, &list); err != nil || status != 429 {
		t.Errorf("status %d, %v", status, err)
	}
	text := get(t, s.url+"/metrics", nil)
	for _, want := range []string{`judge_runs_total{verdict="accepted"} 2`, "judge_refused_total 2", "judge_run_seconds_count 2", "judge_running 0"} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if page := get(t, s.url+"/", nil); !strings.Contains(page, "judge.js") {
		t.Error(page)
	}
}

// A program that runs when the service is asked to end comes to its end; one that takes too long is ended.
func TestJudgeServiceEnds(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		for _, tt := range []struct{ name, grace, source, want string }{
			{"grace", "60s", "echo begun; sleep 1; echo done", "accepted"},
			{"too long", "100ms", "sleep 50", "internal error"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				s := judgeService(t, c, "-grace", tt.grace)
				got := make(chan answer, 1)
				go func() {
					var a answer
					_, err := s.ask("/run", request{"language": "sh", "source": tt.source, "limits": request{"wall_ms": 60000}}, &a)
					if err != nil && tt.want == "accepted" {
						t.Error(err)
					}
					got <- a
				}()
				for range 3000 {
					if strings.Contains(get(t, s.url+"/metrics", nil), "judge_running 1\n") {
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
				if err := s.stop(); err != nil {
					t.Errorf("%v\n%s", err, s.log.String())
				}
				if a := <-got; a.Verdict != tt.want && (tt.want == "accepted" || a.Verdict != "") {
					t.Errorf("%+v", a)
				}
			})
		}
	})
}
