package caisson

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

func init() { roles["tracer"] = tracerMain }

// tracerMain traces the process that is named and looks at nothing, until its input ends.
func tracerMain() {
	runtime.LockOSThread()
	pid, err := strconv.Atoi(os.Getenv("TRACE"))
	if err == nil {
		err = unix.PtraceSeize(pid)
	}
	fmt.Println(err == nil)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestTracedEnd: the kernel keeps a process that has ended from its parent as long as a tracer has not looked at it.
func TestTracedEnd(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	ended := func(patience time.Duration) (res *Result, err error) {
		defer func(d time.Duration) { tracerPatience = d }(tracerPatience)
		tracerPatience = patience
		c, p := start(t, testContext(t), WithCommand("sleep", "1000"), WithRootfs(dirOf(t)))
		cmd := testutil.Role("tracer", "TRACE="+strconv.Itoa(p.Pid()))
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { in.Close(); _ = cmd.Wait() }()
		said := make([]byte, 8)
		if n, err := out.Read(said); err != nil || string(said[:n]) != "true\n" {
			t.Fatalf("the tracer: %q, %v", said, err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if patience > time.Second {
			time.AfterFunc(100*time.Millisecond, func() { in.Close() })
		}
		res, err = p.Wait(testContext(t))
		_ = c.Close()
		return res, err
	}
	if res, err := ended(time.Minute); err != nil || res.Signal != syscall.SIGKILL || res.Reason != ReasonStopped {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := ended(50 * time.Millisecond); !errors.Is(err, ErrStatusUnknown) {
		t.Errorf("a tracer that does not let go: %v", err)
	}
}
