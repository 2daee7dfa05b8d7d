//go:build linux

package examples_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browser is a headless Chromium, spoken to by its DevTools protocol over two pipes (--remote-debugging-pipe): messages of JSON, each
// ended by a NUL byte.
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	id      int
	session string
}

// findChromium skips the test where there is none.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CAISSON_TEST_BROWSER"), "chromium", "chromium-browser", "google-chrome"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no Chromium here; make test-browser installs it")
	return ""
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	path := findChromium(t)
	dir := ownDir(t, os.Getuid())
	theirIn, ourIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourOut, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	cmd := exec.CommandContext(ctx, path, "--headless=new", "--remote-debugging-pipe", "--user-data-dir="+filepath.Join(dir, "profile"), "--no-sandbox",
		"--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--disable-background-networking", "--no-proxy-server", "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	cmd.Env = append(os.Environ(), "HOME="+dir)
	var log lockedBuffer
	cmd.Stderr = &log
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		ourIn.Close() // which ends it
		ourOut.Close()
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	b := &browser{t: t, in: ourIn, out: bufio.NewReader(ourOut)}
	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	return b
}

// call performs a command of the protocol and returns its result.
func (b *browser) call(method string, params, into any) {
	b.t.Helper()
	b.id++
	msg := map[string]any{"id": b.id, "method": method, "params": params}
	if b.session != "" {
		msg["sessionId"] = b.session
	}
	text, err := json.Marshal(msg)
	if err == nil {
		_, err = b.in.Write(append(text, 0))
	}
	for err == nil {
		var line []byte
		if line, err = b.out.ReadBytes(0); err != nil {
			break
		}
		var resp struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err = json.Unmarshal(line[:len(line)-1], &resp); err != nil || resp.ID != b.id {
			continue // an event
		}
		if resp.Error != nil {
			err = errors.New(resp.Error.Message)
		} else if into != nil {
			err = json.Unmarshal(resp.Result, into)
		}
		break
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// eval evaluates an expression in the page; a promise is waited for.
func (b *browser) eval(expression string, into any) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true}, &r)
	if e := r.ExceptionDetails; e != nil {
		b.t.Fatalf("%s: %s %s", expression, e.Text, e.Exception.Description)
	}
	if into != nil && len(r.Result.Value) > 0 {
		if err := json.Unmarshal(r.Result.Value, into); err != nil {
			b.t.Fatalf("%s: %v", expression, err)
		}
	}
}

// await waits until an expression is true.
func (b *browser) await(expression string) {
	b.t.Helper()
	for range 3000 {
		var ok bool
		if b.eval("Boolean("+expression+")", &ok); ok {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.t.Fatalf("%s did not become true", expression)
}

// TestJudgePage uses the page as a person does: writes a program, presses the button, reads the verdict; then runs all examples.
func TestJudgePage(t *testing.T) {
	b := startBrowser(t)
	s := judgeService(t, caller{os.Getuid(), ownDir(t, os.Getuid())}, "-parallel", "4")
	b.call("Page.navigate", map[string]any{"url": s.url + "/"}, nil)
	b.await(`document.body && document.body.dataset.ready === "yes"`)

	b.eval(`language.value = "sh"; source.value = "read n; echo $((n * 2)); echo '<b>&amp;</b>' >&2"; stdin.value = "21\n"; want.value = "42"; run.click()`, nil)
	b.await(`!document.getElementById("run").disabled && document.getElementById("verdict").textContent !== "…"`)
	var page struct{ Verdict, Stdout, Stderr, Figures string }
	b.eval(`(() => { const o = {}; for (const k of ["verdict", "stdout", "stderr", "figures"]) o[k] = document.getElementById(k).textContent; return o; })()`, &page)
	if page.Verdict != "accepted" || page.Stdout != "42\n" || page.Stderr != "<b>&amp;</b>\n" || !strings.Contains(page.Figures, " ms") {
		t.Errorf("%+v", page)
	}

	b.eval(`document.getElementById("all").click()`, nil)
	b.await(`document.body.dataset.done === "all"`)
	var rows [][]string
	b.eval(`[...document.querySelectorAll("#examples tr")].map((tr) => [...tr.children].map((td) => td.textContent))`, &rows)
	if len(rows) < 10 {
		t.Errorf("%d examples: %v", len(rows), rows)
	}
	for _, r := range rows {
		t.Log(strings.Join(r, " | "))
		if r[1] != r[2] {
			t.Errorf("%s: %s; should be %s (%s)", r[0], r[1], r[2], r[4])
		}
	}
	var foreign int
	b.eval(fmt.Sprintf(`performance.getEntriesByType("resource").filter((e) => !e.name.startsWith(%q)).length`, s.url+"/"), &foreign)
	if foreign != 0 {
		t.Errorf("the page has loaded %d things from elsewhere", foreign)
	}
}
