package caisson

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// attached attaches to a container with buffers.
func attached(t testing.TB, c *Container, o AttachOptions) (*Attachment, *buffer, io.WriteCloser) {
	t.Helper()
	out := &buffer{}
	r, w := io.Pipe()
	o.Stdin, o.Stdout = r, out
	a, err := c.Attach(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); w.Close() })
	return a, out, w
}

// Several are attached at once, each gets all output, what they write is read, and one leaves by its keys.
func TestAttach(t *testing.T) {
	for name, o := range map[string]Option{"terminal": WithTerminal(24, 80), "pipes": WithAttachable(true)} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			c, _ := start(t, testContext(t), o, sh("while read line; do echo got $line; test $line != end || exit 7; done"))
			a, aout, ain := attached(t, c, AttachOptions{DetachKeys: "ctrl-a,x"})
			b, bout, bin := attached(t, c, AttachOptions{})
			if _, err := io.WriteString(ain, "one\n"); err != nil {
				t.Fatal(err)
			}
			aout.await(t, "got one")
			bout.await(t, "got one")
			if _, err := io.WriteString(ain, "\x01\x01y\n\x01x"); err != nil {
				t.Fatal(err)
			}
			if err := a.Wait(testContext(t)); !errors.Is(err, ErrDetached) {
				t.Error(err)
			}
			if _, err := io.WriteString(bin, "two\nend\n"); err != nil {
				t.Fatal(err)
			}
			if err := b.Wait(testContext(t)); err != nil {
				t.Error(err)
			}
			if got := bout.String(); !strings.Contains(got, "got two") || !strings.Contains(got, "got end") || b.Dropped() != 0 {
				t.Errorf("%q", got)
			}
			if strings.Contains(aout.String(), "two") {
				t.Errorf("%q", aout.String())
			}
			if r, err := c.Wait(testContext(t)); err != nil || r.ExitCode != 7 {
				t.Error(r, err)
			}
			if _, err := c.Attach(testContext(t), AttachOptions{}); !errors.Is(err, ErrState) {
				t.Error(err)
			}
		})
	}
}

// Standard error goes apart, the input can be closed, and writers of the options get a copy.
func TestAttachPipes(t *testing.T) {
	noLeaks(t)
	var copied, errs buffer
	c, _ := start(t, testContext(t), WithAttachable(true), WithStdout(&copied), sh("cat; echo err >&2"))
	out := &buffer{}
	a, err := c.Attach(testContext(t), AttachOptions{Stdin: strings.NewReader("input"), Stdout: out, Stderr: &errs, CloseInput: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if out.String() != "input" || errs.String() != "err\n" {
		t.Errorf("%q %q", out.String(), errs.String())
	}
	if _, err := c.Wait(testContext(t)); err != nil || copied.String() != "input" {
		t.Error(err, copied.String())
	}
}

// Who takes nothing holds nothing up, and is told what it missed.
func TestAttachSlow(t *testing.T) {
	noLeaks(t)
	c, p := start(t, testContext(t), WithAttachable(true), sh("read x; dd if=/dev/zero bs=65536 count=32 2>/dev/null"))
	r, w := io.Pipe()
	slow, err := c.Attach(testContext(t), AttachOptions{Stdout: w})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	count := &counter{}
	a, err := c.Attach(testContext(t), AttachOptions{Stdin: strings.NewReader("go\n"), Stdout: count})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := p.Wait(testContext(t)); err != nil || !res.Success() {
		t.Fatal(res, err)
	}
	wg.Go(func() {
		n, _ := io.Copy(io.Discard, r)
		if uint64(n)+slow.Dropped() != 32*65536 || slow.Dropped() == 0 {
			t.Errorf("%d taken, %d dropped", n, slow.Dropped())
		}
	})
	if err := errors.Join(a.Wait(testContext(t)), slow.Wait(testContext(t))); err != nil {
		t.Error(err)
	}
	w.Close()
	wg.Wait()
	if uint64(count.n)+a.Dropped() != 32*65536 {
		t.Error(count.n, a.Dropped())
	}
}

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

// Input that the command does not read holds up nobody who leaves, nor the end.
func TestAttachUnread(t *testing.T) {
	noLeaks(t)
	for name, o := range map[string]Option{"terminal": WithTerminal(0, 0), "pipes": WithAttachable(true)} {
		c, _ := start(t, testContext(t), o, WithCommand("/bin/sleep", "1000"))
		var all []*Attachment
		for range 3 {
			a, err := c.Attach(testContext(t), AttachOptions{Stdin: bytes.NewReader(make([]byte, 1<<20)), Stdout: io.Discard})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, a)
		}
		if err := all[0].Close(); err != nil || !errors.Is(all[0].Wait(testContext(t)), ErrDetached) {
			t.Error(name, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for _, a := range all[1:] {
			if err := a.Wait(testContext(t)); err != nil {
				t.Error(name, err)
			}
		}
	}
}

func TestAttachTerminal(t *testing.T) {
	noLeaks(t)
	c, _ := start(t, testContext(t), WithTerminal(24, 80), sh("while read x; do stty size; done"))
	a, out, in := attached(t, c, AttachOptions{})
	ok := testutil.Eventually(testTime, func() bool {
		if err := a.Resize(40, 132); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(in, "\n")
		time.Sleep(10 * time.Millisecond)
		return strings.Contains(out.String(), "40 132")
	})
	if !ok {
		t.Errorf("%q", out.String())
	}
	if _, err := c.Attach(testContext(t), AttachOptions{CloseInput: true}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := io.WriteString(in, "\x10\x11"); err != nil {
		t.Fatal(err)
	}
	if err := a.Wait(testContext(t)); !errors.Is(err, ErrDetached) {
		t.Error(err)
	}
}

func TestAttachRefused(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/bin/sleep", "1000"))
	if _, err := c.Attach(testContext(t), AttachOptions{}); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(testContext(t), AttachOptions{}); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	for name, o := range map[string]Option{"stdin": WithStdin(strings.NewReader("")), "detached": Options(WithID("x"), WithDetached(true))} {
		var oe *OptionError
		if _, err := New(WithCommand("/bin/true"), WithAttachable(true), o); !errors.As(err, &oe) || oe.Option != "WithAttachable" {
			t.Error(name, err)
		}
	}
	c = newContainer(t, WithAttachable(true), WithCommand("/bin/true"))
	if _, err := c.StdinPipe(); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

func TestDetachKeys(t *testing.T) {
	for s, want := range map[string]string{"ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-[,ctrl-@,~": "\x1b\x00~", "ctrl-": "", "ctrl-P": "", "ab": "", "a,": "", "é": ""} {
		if got, err := parseKeys(s); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v", s, got, err)
		}
	}
	for in, want := range map[string]string{"abc": "abc", "\x10\x11": "|", "\x10\x10\x11x": "\x10|", "\x10x\x10\x11": "\x10x|", "\x10": ""} {
		var got string
		k := keyScanner{keys: []byte("\x10\x11")}
		for i := range in {
			rest, left := k.scan([]byte(in[i : i+1]))
			if got += string(rest); left {
				got += "|"
				break
			}
		}
		if got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if _, err := parseKeys(strings.Repeat("a,", 20) + "a"); err == nil {
		t.Error("too many keys")
	}
}
