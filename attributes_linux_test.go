package caisson

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/namespaces"
)

func init() { roles["attributes"] = attributesRole }

// seen is what a process finds out about itself.
type seen struct {
	Policy, Nice, Priority, Flags    int64
	Runtime, Deadline, Period        int64
	IOPriority, Memory               int64
	CPUs, Personality, Status, Nodes string
	Keyring                          int64
}

// attributesRole prints what the kernel says about the process's first thread.
func attributesRole() {
	var s seen
	attr, err := unix.SchedGetAttr(os.Getpid(), 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s.Policy, s.Nice, s.Priority, s.Flags = int64(attr.Policy), int64(attr.Nice), int64(attr.Priority), int64(attr.Flags)
	s.Runtime, s.Deadline, s.Period = int64(attr.Runtime), int64(attr.Deadline), int64(attr.Period)
	io, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(os.Getpid()), 0)
	s.IOPriority = int64(io)
	var mode int32
	var mask [16]uint64
	unix.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), uintptr(unsafe.Pointer(&mask)), 1024, 0, 0, 0)
	s.Memory, s.Nodes = int64(mode), bitList(mask[:]).String()
	per, _ := os.ReadFile("/proc/self/personality")
	status, _ := os.ReadFile("/proc/self/status")
	s.Personality, s.Status = strings.TrimSpace(string(per)), string(status)
	for line := range strings.Lines(s.Status) {
		if l, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			s.CPUs = strings.TrimSpace(l)
		}
	}
	key, _, e := unix.Syscall(unix.SYS_KEYCTL, 0, ^uintptr(2), 0)
	if s.Keyring = int64(key); e != 0 {
		s.Keyring = -int64(e)
	}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		os.Exit(1)
	}
}

// look returns what a process with the given options sees of itself.
func look(t *testing.T, opts ...Option) seen {
	t.Helper()
	var s seen
	out := output(t, append([]Option{self(t, "attributes"), WithoutSeccomp()}, opts...)...)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

// userNS is the option for a user namespace, where the tests' root filesystems can be had in one.
func userNS(t testing.TB) Option {
	if isRoot() && !idMaps(t) {
		return Options()
	}
	return WithNamespace(namespaces.User, namespaces.New())
}

func TestAttributes(t *testing.T) {
	noLeaks(t)
	s := look(t, WithScheduler(Scheduler{Policy: SchedBatch, Nice: 7, ResetOnFork: true}), WithIOPriority(IOBestEffort, 6), WithCPUAffinity("1"),
		WithMemoryPolicy(MemoryPolicy{Mode: MemoryBind, Nodes: "0", StaticNodes: true}), WithPersonality(Personality{NoRandomize: true}))
	if s.Policy != 3 || s.Nice != 7 || s.Flags != 1 || s.IOPriority != 2<<13|6 || s.CPUs != "1" || s.Memory != unix.MPOL_BIND|unix.MPOL_F_STATIC_NODES ||
		s.Nodes != "0" || s.Personality != "00040000" {
		t.Errorf("got %+v", s)
	}
	s = look(t, WithScheduler(Scheduler{Policy: SchedIdle}), WithIOPriority(IOIdle, 0), WithMemoryPolicy(MemoryPolicy{Mode: MemoryLocal}), WithPersonality(Personality{Linux32: true}))
	if s.Policy != 5 || s.IOPriority != 3<<13 || s.Memory != unix.MPOL_LOCAL || s.Personality != "00000008" {
		t.Errorf("got %+v", s)
	}
}

// What needs privilege is had by root, in a user namespace too, and refused to others with what would help.
func TestPrivilegedScheduling(t *testing.T) {
	if isRoot() {
		needIDMaps(t)
	}
	inUser := WithNamespace(namespaces.User, namespaces.New())
	output(t, inUser, sh("true")) // the host program keeps a user namespace for id maps
	noLeaks(t)
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := int64(20 - raw) // getpriority(2): the system call does not return negative numbers
	deadline := Scheduler{Policy: SchedDeadline, Runtime: time.Millisecond, Deadline: 10 * time.Millisecond, Period: 20 * time.Millisecond}
	for name, c := range map[string]struct {
		opts []Option
		fail bool // for root too
		want seen
	}{
		"fifo":                      {[]Option{WithScheduler(Scheduler{Policy: SchedFIFO, Priority: 3})}, false, seen{Policy: 1, Priority: 3}},
		"round robin, user ns":      {[]Option{WithScheduler(Scheduler{Policy: SchedRR, Priority: 4}), inUser}, false, seen{Policy: 2, Priority: 4}},
		"negative niceness, userns": {[]Option{WithScheduler(Scheduler{Nice: -5}), inUser}, false, seen{Nice: -5}},
		"real-time I/O, user ns":    {[]Option{WithIOPriority(IORealtime, 2), inUser}, false, seen{Nice: own, IOPriority: 1<<13 | 2}},
		"deadline":                  {[]Option{WithScheduler(deadline)}, false, seen{Policy: 6, Runtime: 1e6, Deadline: 1e7, Period: 2e7}},
		"deadline in a user ns":     {[]Option{WithScheduler(deadline), inUser}, true, seen{}},
		"reset in a user ns":        {[]Option{WithScheduler(Scheduler{Policy: SchedFIFO, Priority: 3, ResetOnFork: true}), inUser}, true, seen{}},
	} {
		t.Run(name, func(t *testing.T) {
			probe := newContainer(t, append([]Option{WithCommand("/bin/true")}, c.opts...)...)
			if isRoot() && !c.fail {
				if c.want.Policy == 6 {
					// A Go program makes threads, which the kernel refuses to a deadline process: the shell does not.
					got := output(t, append([]Option{sh("cat /proc/self/sched"), WithoutCgroup()}, c.opts...)...)
					if !strings.Contains(got, "dl.runtime") {
						t.Errorf("got %s", got)
					}
					return
				}
				got := look(t, append(c.opts, WithoutCgroup())...)
				if got.Policy != c.want.Policy || got.Nice != c.want.Nice || got.Priority != c.want.Priority || c.want.IOPriority != 0 && got.IOPriority != c.want.IOPriority {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				return
			}
			for call, err := range map[string]error{"check": probe.Check(testContext(t)), "run": probe.Run(testContext(t))} {
				var e *Error
				if !errors.Is(err, ErrPrivilege) || !errors.As(err, &e) || e.Remedy == "" {
					t.Errorf("%s: got %v", call, err)
				}
			}
		})
	}
}

func TestAttributesOfThisMachine(t *testing.T) {
	for name, opt := range map[string]Option{
		"CPU":     WithCPUAffinity("0,8000"),
		"node":    WithMemoryPolicy(MemoryPolicy{Mode: MemoryInterleave, Nodes: "0,1000"}),
		"cookie?": WithCoreScheduling(true),
	} {
		c := newContainer(t, WithCommand("/bin/true"), opt)
		err := c.Check(testContext(t))
		if name == "cookie?" && coreScheduling() == nil {
			if got := output(t, opt, sh("echo ran")); err != nil || got != "ran" {
				t.Errorf("got %q, %v", got, err)
			}
			continue
		}
		var e *Error
		if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || e.Remedy == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSessionKeyring(t *testing.T) {
	if err := keyrings(); err != nil {
		t.Skipf("keyrings: %v", err)
	}
	id, _, e := unix.Syscall(unix.SYS_KEYCTL, 0, ^uintptr(2), 1)
	if e != 0 {
		t.Fatal(e)
	}
	a, b, kept := look(t), look(t), look(t, WithHostKeyring(true))
	if a.Keyring <= 0 || a.Keyring == b.Keyring || a.Keyring == int64(id) {
		t.Errorf("the host has keyring %d, containers %d and %d", id, a.Keyring, b.Keyring)
	}
	if kept.Keyring == a.Keyring || kept.Keyring == b.Keyring {
		t.Errorf("the host's keyring was kept, but it is %d", kept.Keyring)
	}
}

func TestGroups(t *testing.T) {
	if !isRoot() {
		auto, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
		if err != nil {
			t.Fatal(err)
		}
		if auto.Style == namespaces.SingleID {
			err := newContainer(t, WithCommand("/bin/true"), WithGroups(7)).Check(testContext(t))
			if !errors.Is(err, ErrPrivilege) {
				t.Errorf("got %v", err)
			}
			return
		}
	}
	if got := output(t, WithUser("5:6"), WithGroups(7, 9), sh("id -G")); got != "6 7 9" {
		t.Errorf("got %q", got)
	}
	if got := output(t, WithGroups(), sh("id -G")); got != "0" {
		t.Errorf("got %q", got)
	}
	if isRoot() && !idMaps(t) {
		return
	}
	c := newContainer(t, WithCommand("/bin/true"), WithGroups(7, 4e9), userNS(t))
	if err := c.Check(testContext(t)); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "4000000000") {
		t.Errorf("got %v", err)
	}
}

func TestCapabilitySets(t *testing.T) {
	sets := CapabilitySets{Bounding: []string{"chown", "kill", "net_raw", "net_bind_service"}, Permitted: []string{"chown", "kill"}, Effective: []string{"chown"},
		Inheritable: []string{"chown", "net_raw"}, Ambient: []string{"chown"}}
	status := func(user string) string {
		opts := []Option{WithCapabilitySets(sets), sh("grep ^Cap /proc/self/status"), userNS(t)}
		if user != "" {
			opts = append(opts, WithUser(user))
		}
		return strings.Join(strings.Fields(output(t, opts...)), " ")
	}
	hex := func(s ...caps.Cap) string { return fmt.Sprintf("%016x", uint64(caps.Of(s...))) }
	all := hex(caps.Chown, caps.Kill, caps.NetRaw, caps.NetBindService)
	// Without no_new_privs root would regain by execve all that the bounding set has.
	held := hex(caps.Chown, caps.Kill)
	want := "CapInh: " + hex(caps.Chown, caps.NetRaw) + " CapPrm: " + held + " CapEff: " + held + " CapBnd: " + all + " CapAmb: " + hex(caps.Chown)
	if got := status(""); got != want {
		t.Errorf("root has\n%s, want\n%s", got, want)
	}
	auto, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err != nil || auto.Style == namespaces.SingleID {
		return // there is no other user
	}
	amb := hex(caps.Chown)
	want = "CapInh: " + hex(caps.Chown, caps.NetRaw) + " CapPrm: " + amb + " CapEff: " + amb + " CapBnd: " + all + " CapAmb: " + amb
	if got := status("5:6"); got != want {
		t.Errorf("a user has\n%s, want\n%s", got, want)
	}
}

func TestNamedRlimit(t *testing.T) {
	if got := output(t, WithNamedRlimit("RLIMIT_CORE", 0, 0), WithNamedRlimit("nofile", 77, 99), sh("ulimit -n; ulimit -H -n")); got != "77\n99" {
		t.Errorf("got %q", got)
	}
	err := newContainer(t, WithCommand("/bin/true"), WithNamedRlimit("nofile", 1, 1<<40)).Check(testContext(t))
	if eff, _, _, _ := caps.Held(); eff.Has(caps.SysResource) && inFirstUserNamespace() {
		return
	}
	if !errors.Is(err, ErrPrivilege) || !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
		t.Errorf("got %v", err)
	}
}

func TestAttributesExplained(t *testing.T) {
	var b strings.Builder
	c := newContainer(t, WithCommand("/bin/true"), WithScheduler(Scheduler{Nice: 19}), WithIOPriority(IOIdle, 0), WithCPUAffinity("0"),
		WithMemoryPolicy(MemoryPolicy{Mode: MemoryPreferred, Nodes: "0"}), WithPersonality(Personality{}))
	if err := c.Explain(testContext(t), &b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sched_setattr(0, {size=48, sched_policy=SCHED_OTHER", "IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)", "sched_setaffinity(0, 8, [0])",
		"set_mempolicy(MPOL_PREFERRED, [0], 65)", "personality(0)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is not in\n%s", want, b.String())
		}
	}
	if keyrings() == nil && !slices.Contains(strings.Fields(b.String()), "keyctl(KEYCTL_JOIN_SESSION_KEYRING,") {
		t.Errorf("no keyring in\n%s", b.String())
	}
}
