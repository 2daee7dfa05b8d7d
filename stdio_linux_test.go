package caisson

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStdioDefault(t *testing.T) {
	noLeaks(t)
	var out buffer
	c := newContainer(t, sh("cat; readlink /proc/self/fd/0; ls /proc/self/fd | wc -l; echo lost >&2"), WithStdout(&out))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// ls has 0, 1, 2 and the directory it reads.
	if out.String() != "/dev/null\n4\n" {
		t.Errorf("%q", out.String())
	}
}

func TestStdioFiles(t *testing.T) {
	noLeaks(t)
	in, out, errs := tempFile(t), tempFile(t), tempFile(t)
	if _, err := in.WriteString("from a file"); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, sh("cat; echo why >&2"), WithStdin(in), WithStdout(out), WithStderr(errs))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[*os.File]string{out: "from a file", errs: "why\n"} {
		if b, err := os.ReadFile(f.Name()); err != nil || string(b) != want {
			t.Errorf("%q %v, want %q", b, err, want)
		}
		if _, err := f.WriteString("still open"); err != nil {
			t.Error(err)
		}
	}
}

// serialWriter fails the test when two goroutines write at a time.
type serialWriter struct {
	t    *testing.T
	busy bool // guarded by nothing: the race detector watches
	b    bytes.Buffer
}

func (w *serialWriter) Write(p []byte) (int, error) {
	if w.busy {
		w.t.Error("two writes at a time")
	}
	w.busy = true
	defer func() { w.busy = false }()
	return w.b.Write(p)
}

func TestSameWriterForBoth(t *testing.T) {
	noLeaks(t)
	w := &serialWriter{t: t}
	c := newContainer(t, sh("i=0; while [ $i -lt 200 ]; do echo o; echo e >&2; i=$((i+1)); done"), WithStdout(w), WithStderr(w))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got, want := w.b.String(), strings.Repeat("o\ne\n", 200); got != want {
		t.Errorf("order is lost: %q", got)
	}
}

// uncomparable writers must not make a panic.
type uncomparable struct {
	w io.Writer
	_ []int
}

func (u uncomparable) Write(p []byte) (int, error) { return u.w.Write(p) }

func TestUncomparableWriters(t *testing.T) {
	noLeaks(t)
	var b buffer
	c := newContainer(t, sh("echo o; echo e >&2"), WithStdout(uncomparable{w: &b}), WithStderr(uncomparable{w: &b}))
	if err := c.Run(testContext(t)); err != nil || len(b.String()) != 4 {
		t.Errorf("%q %v", b.String(), err)
	}
}

func TestBigOutputAndInput(t *testing.T) {
	noLeaks(t)
	const n = 24 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), n/16)
	h := sha256.New()
	c := newContainer(t, sh("cat"), WithStdin(bytes.NewReader(data)), WithStdout(h))
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
		t.Error("what came out is not what went in")
	}
}

// A reader that never ends does not keep Wait from returning; its goroutine ends with its next read.
func TestStdinThatNeverEnds(t *testing.T) {
	noLeaks(t)
	pr, pw := io.Pipe()
	c := newContainer(t, sh("read line; echo got $line"), WithStdin(pr))
	go io.WriteString(pw, "one\n")
	out, err := c.Output(testContext(t))
	if err != nil || string(out) != "got one\n" {
		t.Errorf("%q %v", out, err)
	}
	pw.Close()
}

// An endless reader is given up when nobody reads its pipe any more.
func TestStdinEndless(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, sh("head -c 100 | wc -c"), WithStdin(endless{}))
	out, err := c.Output(testContext(t))
	if err != nil || strings.TrimSpace(string(out)) != "100" {
		t.Errorf("%q %v", out, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestStdinThatIsNotRead(t *testing.T) {
	noLeaks(t)
	if r := result(t, WithCommand("/bin/true"), WithStdin(strings.NewReader(strings.Repeat("x", 1<<20)))); !r.Success() {
		t.Errorf("%+v", r)
	}
}

type failingWriter struct{}

var errWriter = errors.New("the disk is full")

func (failingWriter) Write([]byte) (int, error) { return 0, errWriter }

// A writer that fails is an error of Wait, beside the result, and the command does not hang on a full pipe.
func TestWriterThatFails(t *testing.T) {
	noLeaks(t)
	c, p := start(t, testContext(t), sh("dd if=/dev/zero bs=1M count=2 2>/dev/null; exit 5"), WithStdout(failingWriter{}))
	r, err := p.Wait(testContext(t))
	if !errors.Is(err, errWriter) {
		t.Errorf("%v", err)
	}
	if r == nil || r.ExitCode != 5 && r.Signal != 13 {
		t.Errorf("%+v", r)
	}
	if _, err := c.Wait(testContext(t)); !errors.Is(err, errWriter) {
		t.Errorf("second wait: %v", err)
	}
}

// An output that a process outside holds open is given up after the wait delay.
func TestWaitDelay(t *testing.T) {
	noLeaks(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	// The write end of the copied pipe is taken out of the container through /proc, and kept open here.
	c, p := start(t, testContext(t), sh("read x"), WithStdin(r), WithStdout(&buffer{}), WithWaitDelay(50*time.Millisecond))
	held, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", p.Pid()), os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("the process's output cannot be opened from here: %v", err)
	}
	defer held.Close()
	began := time.Now()
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(testContext(t)); !errors.Is(err, errWaitDelay) {
		t.Errorf("%v", err)
	}
	if d := time.Since(began); d < 50*time.Millisecond {
		t.Errorf("waited %v", d)
	}
}

func TestExtraFiles(t *testing.T) {
	noLeaks(t)
	a, b := tempFile(t), tempFile(t)
	a.WriteString("A")
	b.WriteString("B")
	a.Seek(0, 0)
	b.Seek(0, 0)
	got := output(t, sh("cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '"), WithExtraFiles(a, b))
	if got != "AB0 1 2 3 4 5 " { // 5 is the directory that ls reads
		t.Errorf("%q", got)
	}
}

// Files whose numbers are the places of others are put right, in whatever order.
func TestExtraFilesOfLowNumbers(t *testing.T) {
	noLeaks(t)
	var files []*os.File
	for i := range 12 {
		f := tempFile(t)
		fmt.Fprint(f, i%10)
		f.Seek(0, 0)
		files = append(files, f)
	}
	// The highest number first, and the same file twice.
	opts := []*os.File{files[11], files[3], files[3], files[0], os.Stdin, files[7]}
	got := output(t, sh("cat <&3; cat <&8; cat <&6; cat <&4; readlink /proc/self/fd/5 >/dev/null && echo ."), WithExtraFiles(opts...), WithStdin(files[5]))
	if got != "1703." {
		t.Errorf("%q", got)
	}
}

func TestOutputRefusesSecondWriter(t *testing.T) {
	c := newContainer(t, WithCommand("/bin/true"), WithStdout(&buffer{}))
	if _, err := c.Output(testContext(t)); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	if _, err := c.CombinedOutput(testContext(t)); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// What the standard error said last is in the error, bounded.
func TestOutputKeepsTail(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, sh("dd if=/dev/zero bs=64k count=1 >&2 2>/dev/null; printf last >&2; exit 1"))
	_, err := c.Output(testContext(t))
	var exit *ExitError
	if !errors.As(err, &exit) || len(exit.Stderr) != 32<<10 || !bytes.HasSuffix(exit.Stderr, []byte("last")) {
		t.Errorf("%v, %d bytes", err, len(exit.Stderr))
	}
}

func TestPipes(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, sh("read x; echo \"out $x\"; echo \"err $x\" >&2"))
	for range 2 { // pipes belong to one start
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.StdinPipe(); !errors.Is(err, ErrInvalid) {
			t.Errorf("a second pipe: %v", err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		errs, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Start(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.StdoutPipe(); !errors.Is(err, ErrState) {
			t.Errorf("a pipe for a running container: %v", err)
		}
		if _, err := io.WriteString(in, "hello\n"); err != nil {
			t.Error(err)
		}
		if r, err := p.Wait(testContext(t)); err != nil || !r.Success() {
			t.Errorf("%v %v", r, err)
		}
		for f, want := range map[io.Reader]string{out: "out hello\n", errs: "err hello\n"} {
			if b, err := io.ReadAll(f); err != nil || string(b) != want {
				t.Errorf("%q %v, want %q", b, err, want)
			}
		}
	}
}

func TestPipesOfAFailedStart(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("/no/such"))
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(testContext(t)); !errors.Is(err, ErrCommandNotFound) {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err == nil {
		t.Error("the pipe of a failed start is open")
	}
}
