package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// slowLimitEnv says after how long a context ends.
const slowLimitEnv = "CAISSON_TEST_SLOW_LIMIT"

func init() { roles["slow disk"] = slowDiskRole }

// slowDiskRole makes, starts and removes a container that is recorded, and says how that went.
func slowDiskRole() {
	ctx := context.Background()
	if s := os.Getenv(slowLimitEnv); s != "" {
		limit, err := time.ParseDuration(s)
		if err != nil {
			fmt.Println(err)
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	f := &faulty{ctx: ctx, root: WithRootfs(rootfs.Dir(os.Getenv(rootEnv)))}
	if !isRoot() { // what is traced gains no privilege, and so newuidmap none
		f.root = Options(f.root, WithIDMaps(namespaces.SingleIDMaps()))
	}
	err := f.detached(os.Getenv(dirEnv))
	switch {
	case err == nil:
		fmt.Println("done")
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Println("given up")
	default:
		fmt.Println("error:", err)
	}
}

// Everything that a disk is asked for takes long: a container is made, started and removed all the same. Contexts that end meanwhile are heeded,
// wherever that is, and nothing is left then.
func TestSlowDisk(t *testing.T) {
	strace := needStrace(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := testutil.Busybox(t)
	for _, tt := range []struct {
		call        time.Duration
		limit, want string
	}{
		{20 * time.Millisecond, "", "done"},
		{200 * time.Millisecond, "10ms", "given up"},
		{50 * time.Millisecond, "300ms", ""},
	} {
		t.Run(fmt.Sprint(tt.call, " ", tt.limit), func(t *testing.T) {
			noLeaks(t)
			d := stateDir(t)
			if err := os.MkdirAll(string(d), 0o700); err != nil {
				t.Fatal(err)
			}
			calls := "fsync,fdatasync,renameat,renameat2,unlinkat,mkdirat"
			cmd := exec.CommandContext(testContext(t), strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+calls,
				"-e", fmt.Sprintf("inject=%s:delay_enter=%d", calls, tt.call.Microseconds()), exe)
			cmd.Env = append(os.Environ(), testutil.RoleEnv+"=slow disk", rootEnv+"="+root, dirEnv+"="+string(d), slowLimitEnv+"="+tt.limit)
			begin := time.Now()
			var stderr buffer // strace itself has something to say about processes that die meanwhile
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			said := strings.TrimSpace(string(out))
			if err != nil || said != tt.want && (tt.want != "" || said != "done" && said != "given up") {
				t.Errorf("%v, %q, %s", err, said, stderr.String())
			}
			if took := time.Since(begin); said == "done" && took < 3*tt.call { // else nothing was slow
				t.Errorf("done after %v", took)
			}
			d.clean(t, 0)
		})
	}
}
