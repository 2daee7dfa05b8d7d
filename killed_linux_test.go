package caisson

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// killStepEnv names the variable that says by how many system calls the moments of a kill lie apart: 1 takes a minute.
const killStepEnv = "CAISSON_TEST_KILL_STEP"

func killStep(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv(killStepEnv))
	switch {
	case err == nil && n > 0:
		return n
	case testing.Short():
		return 97
	}
	return 29
}

// Host programs that make, start and remove containers are killed at a system call, each time a later one, and so are the
// processes they make, at their own. Each time Recover has to leave nothing that should not live, and to keep what should.
func TestKilledAtEverySystemCall(t *testing.T) {
	for _, do := range []string{"start", "create", "release", "remove", "watched-start", "watched-stop", "watched-remove"} {
		t.Run(do, func(t *testing.T) {
			k := &killing{t: t, d: stateDir(t), dir: testutil.Busybox(t), do: do,
				id: fmt.Sprint("kill-", do, os.Getpid()), mark: fmt.Sprint(770000 + os.Getpid()%100000)}
			n, runs := 1, 0
			step := killStep(t)
			if strings.HasPrefix(do, "watched-") {
				step = widerStep(t, 4)
			}
			for ; !k.once(n); n += step {
				runs++
				if n > 3000 {
					t.Fatal("it never gets to its end")
				}
			}
			if runs < 2 {
				t.Errorf("only %d kills", runs)
			}
			t.Logf("%d kills, up to system call %d", runs, n)
		})
	}
}

// before says what another program has to do first.
var before = map[string]string{"release": "create", "remove": "start", "watched-stop": "watched-start", "watched-remove": "watched-start"}

// watchedOption names this test binary as the monitor of a container, which so lives in one more program.
func watchedOption() Option {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Options(WithHealthCheck(HealthCheck{Command: []string{"/bin/true"}}), WithMonitor(Monitor{Path: self,
		Env: append(os.Environ(), testutil.RoleEnv+"=monitor", "CAISSON_TEST_STDERR="+os.DevNull)}))
}

// watchers are the monitors of a container: processes whose environment names it.
func watchers(id string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range all {
		b, _ := os.ReadFile(f)
		if s := string(b) + "\x00"; strings.Contains(s, "\x00CAISSON_TEST_ID="+id+"\x00") && strings.Contains(s, testutil.RoleEnv+"=monitor\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}

type killing struct {
	t            *testing.T
	d            StateDir
	dir          string
	do, id, mark string

	made  *string       // the container that is there meanwhile
	takes time.Duration // when it is not killed

	survived bool // nobody was killed in the last run
}

// once kills the program at its nth system call; true means that it had ended before.
func (k *killing) once(n int) (survived bool) {
	t := k.t
	ctx := testContext(t)
	script := "sleep " + k.mark
	if first := before[k.do]; first != "" {
		if out, err := detachHost(k.d, k.id, k.dir, script, first).Output(); err != nil {
			t.Fatalf("%s %v", out, err)
		}
	}
	said := k.run(n, script)
	made := strings.Contains(said, "made ")
	var l []Info
	var err error
	testutil.Eventually(testTime/4, func() bool {
		if _, err := k.d.Recover(ctx); err != nil {
			t.Errorf("killed at %d, which said %q: recover: %v", n, said, err)
		}
		l, err = k.d.List(ctx)
		// A helper of the program's, such as newuidmap, holds its files until it is executed, and so the lock.
		return err != nil || len(l) != 1 || l[0].State != StateCreating
	})
	if err != nil || len(l) > 1 {
		t.Fatalf("killed at %d: %+v, %v", n, l, err)
	}
	removes := strings.HasSuffix(k.do, "remove")
	switch {
	case made && !removes && len(l) == 0:
		t.Errorf("killed at %d: %s was done, and the container is lost", n, k.do)
	case before[k.do] != "" && !removes && len(l) == 0:
		t.Errorf("killed at %d: a container that was there before is lost", n)
	case k.do == "watched-stop" && made && l[0].State != StateStopped:
		t.Errorf("killed at %d: it was stopped, and is %v", n, l[0].State)
	case made && removes && len(l) > 0:
		t.Errorf("killed at %d: it was removed, and is there: %+v", n, l)
	}
	if len(l) > 0 {
		c, err := k.d.Load(ctx, k.id)
		if err == nil {
			err = c.Remove(ctx)
		}
		// A monitor that lives takes back what nobody has heard of, maybe just now.
		if err != nil && (made || before[k.do] != "" || !errors.Is(err, ErrNotFound)) {
			t.Fatalf("killed at %d, %+v: load and remove: %v", n, l, err)
		}
	}
	var left string
	if !testutil.Eventually(testTime/4, func() bool {
		_, _ = k.d.Recover(ctx) // who was dying above may have held the lock then
		files, _ := os.ReadDir(string(k.d))
		left = fmt.Sprint(processesWith(k.mark), watchers(k.id), groupsOf(k.id), files)
		return left == "[] [] [] []"
	}) {
		t.Fatalf("killed at %d, which said %q, then %+v: left are processes, groups and files %s", n, said, l, left)
	}
	return k.survived
}

// run runs the program, which is killed at a system call, or one of the processes that it makes. It returns what the program said, and
// "killed" if it did not come to its end.
func (k *killing) run(n int, script string) string {
	t := k.t
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	role := detachHost(k.d, k.id, k.dir, script, k.do, "CAISSON_TEST_SINGLE=1") // a traced newuidmap gains no privilege
	role.Stdout = out
	patience := time.Duration(0)
	if insideRoles[k.do] != nil { // what enters the container on behalf of the program ends soon
		patience = 2 * time.Second
	}
	calls, err := testutil.KillAt(role, n, patience)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	k.survived = calls < n
	said := string(b)
	if !strings.Contains(said, "made ") && !strings.Contains(said, "error ") {
		said += "killed"
	}
	return said
}
