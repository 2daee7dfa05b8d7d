package kills

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
)

// stepEnv names the variable that says by how many system calls the moments of a kill lie apart: 1 is every one; "50+7" begins with the seventh, so that 50 short runs have
// every one between them.
const stepEnv = "CAISSON_TEST_KILL_STEP"

// Owner undoes what was recorded: netns.Owner.
type Owner interface {
	journal.Undoer
	Name() string
}

// Kills is a program that is killed again and again.
type Kills struct {
	// Role is which of the test binary's (see testutil.Role), with Env. It says "done" at its end, and "error" when something has failed.
	Role string
	Env  []string
	// Owner undoes what it left.
	Owner Owner
	// Times is about how often it is killed, a third of that with -short, unless the variable CAISSON_TEST_KILL_STEP says by how many calls the kills lie apart.
	Times int
	// Patience bounds one run.
	Patience time.Duration
	// Check looks at more than [Host] has, after the kill at the nth call. It may be nil.
	Check func(n int)
}

// Each kills the program at a system call of any of its threads, each time a later one. Each time the recovery has to leave the host as it was before.
func (k *Kills) Each(t *testing.T) {
	t.Helper()
	before := Host(t)
	said, total := k.run(t, math.MaxInt)
	if !strings.Contains(said, "done") {
		t.Fatalf("it does not get to its end: %s", said)
	}
	runs, undone := 0, 0
	times := k.times()
	for n := first(); ; {
		said, calls := k.run(t, n)
		undone += Recover(t, k.Owner, k.Patience)
		if after := Host(t); after != before {
			t.Fatalf("killed at system call %d, which said %q. Before:\n%s\nafter:\n%s", n, said, before, after)
		}
		if k.Check != nil {
			k.Check(n)
		}
		if strings.Contains(said, "error") {
			t.Fatalf("killed at %d: %s", n, said)
		}
		if calls < n {
			if calls > total/2 {
				break
			}
			total, n = calls, first() // threads that wait for each other had made many more calls the first time: the kills are closer together
			continue
		}
		if runs++; n > 1_000_000 {
			t.Fatal("it never gets to its end")
		}
		n += step(total, times)
	}
	if runs == 0 || times >= 15 && undone == 0 { // how many there are the scheduler decides, and a few may all come before anything is made
		t.Errorf("only %d kills, %d of them with something to undo", runs, undone)
	}
	t.Logf("%d kills of some %d system calls, %d with something to undo", runs, total, undone)
}

func (k *Kills) times() int {
	if testing.Short() || testutil.Slow() {
		return max(1, k.Times/3)
	}
	return k.Times
}

// step is how many calls the next kill is later.
func step(total, times int) int {
	s, _, _ := strings.Cut(os.Getenv(stepEnv), "+")
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return n
	}
	return max(1, total/times) + rand.IntN(3) // each run of the test finds other moments
}

// first is the first call at which it is killed.
func first() int {
	_, s, _ := strings.Cut(os.Getenv(stepEnv), "+")
	n, _ := strconv.Atoi(s)
	return max(1, n)
}

// run runs the program, kills it at its nth system call, and returns what it said and how many calls were counted.
func (k *Kills) run(t *testing.T, n int) (said string, calls int) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := testutil.Role(k.Role, k.Env...)
	cmd.Stdout = out
	if calls, err = testutil.KillAt(cmd, n, k.Patience/2); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b), calls
}

// Recover undoes what killed programs left, and returns how many entries of the journal there were.
func Recover(t testing.TB, o Owner, patience time.Duration) int {
	t.Helper()
	dir, err := journal.Dir()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	undone, err := journal.Recover(ctx, dir, map[string]journal.Undoer{o.Name(): o})
	if err != nil {
		t.Errorf("recovery: %v", err)
	}
	return undone
}
