package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// raw writes a configuration that the types of the specification cannot express.
func (t *trial) raw(change func(m map[string]any)) {
	b, err := json.Marshal(t.spec)
	t.must(err)
	var m map[string]any
	t.must(json.Unmarshal(b, &m))
	change(m)
	b, err = json.Marshal(m)
	t.must(err)
	t.writeRaw(b)
}

// field is a line of /proc/self/status.
func (r *report) field(name string) string {
	for line := range strings.SplitSeq(r.Status, "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// limit is a line of /proc/self/limits: soft and hard.
func (r *report) limit(name string) string {
	for line := range strings.SplitSeq(r.Limits, "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.Join(strings.Fields(rest)[:2], " ")
		}
	}
	return ""
}

func processChecks() []check {
	const s = "config: process"
	return []check{
		{s, "MUST", "cwd is the working directory", func(t *trial) { t.spec.Process.Cwd = "/tmp"; want(t, "cwd", t.report().Cwd, "/tmp") }},
		{s, "MUST", "cwd must be absolute", func(t *trial) { t.spec.Process.Cwd = "tmp"; t.refusesConfig() }},
		{s, "MUST", "cwd is required", func(t *trial) { t.spec.Process.Cwd = ""; t.refusesConfig() }},
		{s, "MUST", "args needs an entry", func(t *trial) { t.spec.Process.Args = nil; t.refusesConfig() }},
		{s, "MUST", "args are those of the program", func(t *trial) {
			want(t, "args", fmt.Sprintf("%q", t.report("a b", "", "'c").Args), `["/probe" "report" "a b" "" "'c"]`)
		}},
		{s, "MUST", "args[0] is searched for in PATH", func(t *trial) {
			t.must(os.Mkdir(t.root("bin"), 0o755))
			t.must(os.Rename(t.root("probe"), t.root("bin/probe")))
			t.spec.Process.Args = []string{"probe", "report"}
			t.write()
			t.made = append(t.made, t.id)
			t.parse(t.ok("run", "--bundle", t.bundle(), t.id))
		}},
		{s, "MUST", "env is the environment", func(t *trial) {
			t.spec.Process.Env = []string{"PATH=/bin", "A=1", "B=x y", "C="}
			r := t.report()
			for _, e := range t.spec.Process.Env {
				if !slices.Contains(r.Env, e) {
					t.failf("no %s in %q", e, r.Env)
				}
			}
		}},
		{s, "MUST", "env: nothing of the runtime's own environment", func(t *trial) {
			t.spec.Process.Args = []string{"/probe", "report"}
			t.write()
			t.made = append(t.made, t.id)
			r := t.parse(t.ociEnv([]string{"CONFORMANCE_SECRET=1"}, "run", "--bundle", t.bundle(), t.id))
			if slices.Contains(r.Env, "CONFORMANCE_SECRET=1") {
				t.failf("env is %q", r.Env)
			}
		}},
		{s, "field", "terminal false: the streams are the runtime's", func(t *trial) { want(t, "terminal", t.report().Terminal, false) }},
		{s, "field", "terminal true: a terminal comes over the console socket", func(t *trial) {
			t.spec.Process.Terminal = true
			want(t, "terminal", t.onTerminal("stat:/dev/console").Terminal, true)
		}},
		{s, "field", "consoleSize is the size of the terminal", func(t *trial) {
			t.spec.Process.Terminal, t.spec.Process.ConsoleSize = true, &specs.Box{Height: 11, Width: 22}
			r := t.onTerminal()
			want(t, "size", fmt.Sprint(r.Rows, r.Cols), "11 22")
		}},
		{s, "MUST", "consoleSize is ignored without a terminal", func(t *trial) {
			t.spec.Process.ConsoleSize = &specs.Box{Height: 11, Width: 22}
			want(t, "terminal", t.report().Terminal, false)
		}},
		{s, "MUST", "/dev/console is the terminal, if there is one", func(t *trial) {
			t.spec.Process.Terminal = true
			if got := t.onTerminal("stat:/dev/console").Did["stat:/dev/console"]; !strings.HasPrefix(got, "chr ") || !strings.Contains(got, " 136:") {
				t.failf("/dev/console is %s", got)
			}
		}},
	}
}

// attributeChecks are those of POSIX and Linux processes.
func attributeChecks() []check {
	const posix, linux = "config: posix process", "config: linux process"
	rlimit := func(list ...specs.POSIXRlimit) func(t *trial) {
		return func(t *trial) {
			t.spec.Process.Rlimits = list
			names := map[string]string{"RLIMIT_CORE": "Max core file size", "RLIMIT_FSIZE": "Max file size", "RLIMIT_NOFILE": "Max open files", "RLIMIT_CPU": "Max cpu time",
				"RLIMIT_SIGPENDING": "Max pending signals", "RLIMIT_MSGQUEUE": "Max msgqueue size", "RLIMIT_MEMLOCK": "Max locked memory"}
			r := t.report()
			for _, l := range list {
				want(t, l.Type, r.limit(names[l.Type]), fmt.Sprint(l.Soft, l.Hard))
			}
		}
	}
	list := []check{
		{posix, "MUST", "rlimits: soft and hard are as configured", rlimit(specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 512, Hard: 1024}, specs.POSIXRlimit{Type: "RLIMIT_FSIZE", Soft: 1 << 30, Hard: 1 << 31})},
		{posix, "MUST", "rlimits: RLIMIT_NOFILE", rlimit(specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: 200, Hard: 200})},
		{posix, "MUST", "rlimits: RLIMIT_CPU", rlimit(specs.POSIXRlimit{Type: "RLIMIT_CPU", Soft: 100, Hard: 200})},
		{posix, "MUST", "rlimits: RLIMIT_SIGPENDING", rlimit(specs.POSIXRlimit{Type: "RLIMIT_SIGPENDING", Soft: 100, Hard: 200})},
		{posix, "MUST", "rlimits: RLIMIT_MSGQUEUE", rlimit(specs.POSIXRlimit{Type: "RLIMIT_MSGQUEUE", Soft: 1000, Hard: 2000})},
		{posix, "MUST", "rlimits: an unknown type is an error", func(t *trial) {
			t.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONE", Soft: 1, Hard: 1}}
			t.refusesConfig()
		}},
		{posix, "MUST", "rlimits: a type that is listed twice is an error", func(t *trial) {
			l := specs.POSIXRlimit{Type: "RLIMIT_CORE", Soft: 1, Hard: 1}
			t.spec.Process.Rlimits = []specs.POSIXRlimit{l, l}
			t.refusesConfig()
		}},
		{posix, "MUST", "rlimits: soft above hard is an error", func(t *trial) {
			t.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}}
			t.fails()
		}},
		{linux, "field", "noNewPrivileges true", func(t *trial) {
			t.spec.Process.NoNewPrivileges = true
			want(t, "NoNewPrivs", t.report().field("NoNewPrivs"), "1")
		}},
		{linux, "field", "noNewPrivileges false", func(t *trial) { want(t, "NoNewPrivs", t.report().field("NoNewPrivs"), "0") }},
		{linux, "MUST", "oomScoreAdj is set", func(t *trial) { t.spec.Process.OOMScoreAdj = ref(500); want(t, "score", t.report().OOM, "500") }},
		{linux, "MUST", "oomScoreAdj that is not set is not changed", func(t *trial) {
			b, err := os.ReadFile("/proc/self/oom_score_adj")
			t.must(err)
			want(t, "score", t.report().OOM, strings.TrimSpace(string(b)))
		}},
		{linux, "MUST", "capabilities: an unknown one is no error", func(t *trial) { t.capable("CAP_CHOWN", "CAP_NONE"); t.report() }},
		{linux, "MUST", "capabilities: an unknown one is warned of", func(t *trial) {
			t.capable("CAP_CHOWN", "CAP_NONE")
			if s := t.runs("exit", "0"); s.code != 0 || !strings.Contains(s.errs, "CAP_NONE") {
				t.failf("%v", s)
			}
		}},
		{linux, "SHOULD", "capabilities: one that cannot be granted is no error", func(t *trial) {
			all := []string{"CAP_CHOWN", "CAP_SYS_RESOURCE"}
			t.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
			t.report()
		}},
		{linux, "field", "ioPriority", func(t *trial) {
			t.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
			want(t, "priority", t.report().IOPrio, 2<<13|6)
		}},
		{linux, "field", "ioPriority: an unknown class is an error", func(t *trial) {
			t.spec.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_NONE_SUCH", Priority: 6}
			t.fails()
		}},
		{linux, "field", "scheduler: SCHED_BATCH with a nice value", func(t *trial) {
			t.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
			r := t.report()
			want(t, "policy and nice", fmt.Sprint(r.Policy, r.Priority), "3 5")
		}},
		{linux, "field", "scheduler: SCHED_IDLE", func(t *trial) {
			t.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle}
			want(t, "policy", t.report().Policy, 5)
		}},
		{linux, "field", "scheduler: an unknown policy is an error", func(t *trial) {
			t.spec.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_NONE"}
			t.fails()
		}},
		{linux, "field", "execCPUAffinity: final holds for exec", func(t *trial) {
			t.spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
			t.started()
			want(t, "processors", t.parse(t.ok("exec", t.id, "/probe", "report")).CPUs, 1)
		}},
	}
	for _, set := range []string{"bounding", "effective", "permitted", "inheritable", "ambient"} {
		list = append(list, check{linux, "field", "capabilities: " + set, func(t *trial) { t.capabilitySet(set) }})
	}
	return append(list, check{linux, "field", "capabilities: without the field there are none", func(t *trial) {
		r := t.report()
		want(t, "CapEff", r.field("CapEff"), "0000000000000000")
		want(t, "CapPrm", r.field("CapPrm"), "0000000000000000")
	}})
}

// capabilitySet gives the process CAP_KILL in one set, and in those that it cannot be without.
func (t *trial) capabilitySet(set string) {
	base, more := []string{"CAP_CHOWN"}, []string{"CAP_CHOWN", "CAP_KILL"}
	c := &specs.LinuxCapabilities{Bounding: more, Effective: base, Permitted: base, Inheritable: base}
	line := map[string]string{"bounding": "CapBnd", "effective": "CapEff", "permitted": "CapPrm", "inheritable": "CapInh", "ambient": "CapAmb"}[set]
	switch set {
	case "effective", "permitted":
		c.Effective, c.Permitted = more, more
	case "inheritable":
		c.Inheritable, c.Permitted = more, more
	case "ambient":
		c.Ambient, c.Inheritable, c.Permitted, c.Effective = more, more, more, more
	}
	t.spec.Process.Capabilities = c
	if set == "inheritable" || set == "ambient" { // a program that root runs gets the others anyway
		t.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	}
	want(t, line, t.report().field(line), fmt.Sprintf("%016x", 1<<unix.CAP_CHOWN|1<<unix.CAP_KILL))
}

// fails: create or start is an error.
func (t *trial) fails() {
	t.write()
	t.made = append(t.made, t.id)
	if s := t.oci("create", "--bundle", t.bundle(), t.id); s.code == 0 {
		t.refuses("start", t.id)
	}
}

func userChecks() []check {
	const s = "config: user"
	user := func(u specs.User, f func(t *trial, r *report)) func(t *trial) {
		return func(t *trial) { t.spec.Process.User = u; f(t, t.report()) }
	}
	return []check{
		{s, "MUST", "uid", user(specs.User{UID: 1234}, func(t *trial, r *report) { want(t, "uid", r.UID, 1234) })},
		{s, "MUST", "gid", user(specs.User{GID: 2345}, func(t *trial, r *report) { want(t, "gid", r.GID, 2345) })},
		{s, "MUST", "root is 0", user(specs.User{}, func(t *trial, r *report) { want(t, "ids", fmt.Sprint(r.UID, r.GID), "0 0") })},
		{s, "field", "umask", user(specs.User{Umask: ref(uint32(0o027))}, func(t *trial, r *report) { want(t, "umask", r.Umask, 0o027) })},
		{s, "field", "additionalGids", user(specs.User{UID: 1, GID: 1, AdditionalGids: []uint32{7, 9}}, func(t *trial, r *report) {
			if !slices.Contains(r.Groups, 7) || !slices.Contains(r.Groups, 9) {
				t.failf("groups are %v", r.Groups)
			}
		})},
		{s, "field", "no groups of the runtime's are left", user(specs.User{UID: 1, GID: 1}, func(t *trial, r *report) {
			for _, g := range r.Groups {
				if g != 1 {
					t.failf("groups are %v", r.Groups)
				}
			}
		})},
		{s, "field", "ids are those of the container's user namespace", func(t *trial) {
			t.mapped()
			t.mine()
			t.spec.Process.User = specs.User{UID: 5, GID: 6}
			r := t.report()
			want(t, "ids", fmt.Sprint(r.UID, r.GID), "5 6")
		}},
	}
}

// mine gives the root filesystem to the container's root.
func (t *trial) mine() {
	for _, d := range []string{"", "proc", "dev", "sys", "tmp", "mnt", "etc"} {
		t.must(os.Chown(t.root(d), 100000, 100000))
	}
}
