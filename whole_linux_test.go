package caisson

import (
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/cgroups"
)

// One container from start to stop, with nothing but defaults and two limits: what must work on every architecture.
func TestWholeContainer(t *testing.T) {
	needCgroup(t, cgroups.Memory|cgroups.Pids)
	noLeaks(t)
	var out buffer
	script := `echo "pid $$"; ls /proc/1/root/; grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapInh):' /proc/self/status; ip link | grep -c mtu
		: > /etc/written && echo writable; trap 'echo stopping; exit 0' TERM; echo ready; while :; do sleep 0.05; done`
	c, p := start(t, testContext(t), sh(script), WithHostname("whole"), WithStdout(&out), WithStderr(&out), WithMemory(64<<20))
	out.await(t, "ready")
	for _, want := range []string{"pid 1\n", "Seccomp:\t2\n", "NoNewPrivs:\t1\n", "CapInh:\t0000000000000000\n", "CapBnd:\t00000000a00425fb\n", "\n1\n", "writable\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in what the container sees:\n%s", want, &out)
		}
	}
	for name, want := range map[string]string{"memory limit": "64 MiB", "process limit": "4096"} {
		if m, ok := c.Isolation().Get(name); !ok || m.Status != Applied || m.Detail != want {
			t.Errorf("%s: %v; want %s", name, m, want)
		}
	}
	if err := c.Stop(testContext(t), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Wait(testContext(t)); err != nil || !r.Success() || !strings.Contains(out.String(), "stopping") {
		t.Errorf("%+v, %v, output %q", r, err, &out)
	}
	if r := result(t, sh("exec tail /dev/zero"), WithMemory(32<<20)); r.Reason != ReasonOOM {
		t.Errorf("more memory than the limit: %+v", r)
	}
	many := "i=0; while [ $i -lt 30 ]; do sleep 1000 & i=$((i+1)); done; echo all run"
	out = buffer{}
	if r := result(t, sh(many), WithPids(10), WithStdout(&out)); r.Success() || strings.Contains(out.String(), "all run") {
		t.Errorf("more processes than the limit: %+v", r)
	}
}
