package caisson

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// explained are containers whose real start is compared with what Explain says. The function is called in the role and
// gets a small root filesystem and an empty directory.
var explained = map[string]struct {
	user bool // started by an ordinary user
	many bool // the host program makes a great many calls beforehand: those of a tree walk are left out
	need cgroups.Controllers
	opts func(root, dir string) []Option
}{
	"defaults": {opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root))}
	}},
	"host": {opts: func(string, string) []Option {
		return []Option{WithRootfs(rootfs.Host())}
	}},
	"ordinary user": {user: true, opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root))}
	}},
	"host for an ordinary user": {user: true, many: true, opts: func(string, string) []Option {
		return []Option{WithRootfs(rootfs.Host())}
	}},
	"terminal": {opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root)), WithTerminal(24, 80)}
	}},
	"limits": {need: cgroups.Memory | cgroups.CPU, opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root)), WithMemory(64 << 20), WithCPUs(0.5), WithRlimit(2, 1<<20, 1<<21)}
	}},
	"no cgroup": {opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root)), WithoutCgroup(), WithOOMScoreAdj(500)}
	}},
	"read-only root": {opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root)), WithReadOnlyRoot(true)}
	}},
	"root that is a bind": {opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root).ReadOnly())}
	}},
	"mounts and files": {opts: func(root, dir string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root)), WithFile("/etc/a/b", []byte("te\x00xt\n\"\xff"), 0o640),
			WithMount(
				rootfs.Mount{Type: rootfs.TypeBind, Source: dir, Target: "/var/data/deep", Set: rootfs.ReadOnly},
				rootfs.Mount{Type: rootfs.TypeBind, Source: "/etc/passwd", Target: "/etc/a/name"},
				rootfs.Mount{Type: rootfs.TypeTmpfs, Target: "/scratch", Size: 1 << 20, Set: rootfs.NoSuid | rootfs.NoDev})}
	}},
	"user and directory": {opts: func(root, _ string) []Option {
		return []Option{WithRootfs(rootfs.Dir(root)), WithUser("web"), WithDir("/home/web"), WithAddedCapabilities("CAP_NET_ADMIN"),
			WithHostname("h"), WithSysctl("net.ipv4.ip_forward", "1"), WithUmask(0o27)}
	}},
}

const (
	scenarioEnv    = "CAISSON_TEST_SCENARIO"
	explainRootEnv = "CAISSON_TEST_ROOT"
	dirEnv         = "CAISSON_TEST_DIR"
)

func init() { roles["explain"] = explainRole }

// explainRole prints what a start would do, and does it.
func explainRole() {
	opts := explained[os.Getenv(scenarioEnv)].opts(os.Getenv(explainRootEnv), os.Getenv(dirEnv))
	if err := explainAndRun(append(opts, WithCommand("true", "one", "t\two"))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func explainAndRun(opts []Option) error {
	c, err := New(opts...)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Explain(context.Background(), os.Stdout); err != nil {
		return err
	}
	return c.Run(context.Background())
}

// What Explain prints is what the kernel sees: the same system calls in the same order with the same arguments.
func TestExplainTellsTheTruth(t *testing.T) {
	testutil.NeedRoot(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	bin := copyOfTests(t)
	for name, tt := range explained {
		t.Run(name, func(t *testing.T) {
			needCgroup(t, tt.need)
			if tt.many && testing.Short() {
				t.Skip("not with -short: takes long")
			}
			if tt.many && testutil.Slow() {
				t.Skip("traces many starts: too slow on an emulated processor")
			}
			if tt.many { // what lies in the host's directories is shown
				testutil.HostTree(t, false)
			}
			dir := t.TempDir()
			root := testutil.Busybox(t)
			for _, d := range []string{dir, root} {
				if err := os.Chmod(filepath.Dir(d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			out := filepath.Join(dir, "trace")
			args := []string{"-ff", "-qq", "-v", "-s", "8192", "-o", out}
			if tt.user {
				args = append(args, "-u", "nobody")
			}
			if tt.many {
				args = append(args, "--seccomp-bpf", "-e", "trace=!futex,newfstatat,fstat,statx,getdents64,readlinkat,faccessat2")
			}
			cmd := exec.CommandContext(testContext(t), strace, append(args, bin)...)
			cmd.Dir = "/"
			cmd.Env = append(testutil.RoleEnviron("explain"), scenarioEnv+"="+name, explainRootEnv+"="+root, dirEnv+"="+t.TempDir(),
				"PATH="+os.Getenv("PATH"))
			cmd.Stderr = os.Stderr
			said, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			compare(t, parseExplained(t, string(said)), readTraces(t, out))
		})
	}
}

// copyOfTests puts this program where every user can execute it.
func copyOfTests(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "tests")
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// sysCall is a line of Explain or of strace.
type sysCall struct {
	line string
	name string
	args []string
	note string // Explain's remark
	ret  string // what strace saw
}

func (c sysCall) failed() bool { return strings.HasPrefix(c.ret, "-1 ") }

// parseExplained reads what Explain has printed; steps are comments.
func parseExplained(t *testing.T, text string) []sysCall {
	t.Helper()
	var out []sysCall
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# ") {
			continue
		}
		c := sysCall{line: line}
		body := line
		if i := strings.LastIndex(line, ")  # "); i >= 0 {
			body, c.note = line[:i+1], line[i+len(")  # "):]
		}
		name, args, ok := strings.Cut(body, "(")
		if !ok || !strings.HasSuffix(args, ")") {
			t.Fatalf("not a system call: %q", line)
		}
		c.name, c.args = name, splitTop(strings.TrimSuffix(args, ")"))
		out = append(out, c)
	}
	return out
}

// readTraces reads what strace has written about every process.
func readTraces(t *testing.T, prefix string) map[string][]sysCall {
	t.Helper()
	files, err := filepath.Glob(prefix + ".*")
	if err != nil || len(files) == 0 {
		t.Fatalf("strace has written nothing: %v", err)
	}
	all := map[string][]sysCall{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pid := strings.TrimPrefix(filepath.Ext(f), ".")
		for line := range strings.Lines(string(b)) {
			if i := strings.LastIndex(line, ") "); i >= 0 {
				name, _, _ := strings.Cut(line, "(")
				_, ret, _ := strings.Cut(line[i:], "= ")
				if strings.HasPrefix(ret, "? ERESTART") { // by the kernel itself, which the process does not see: it makes the call again, as when others hold a lock
					continue
				}
				all[pid] = append(all[pid], sysCall{line: strings.TrimSpace(line), name: name, ret: strings.TrimSpace(ret)})
			}
		}
	}
	return all
}

// splitTop splits at commas that stand in no brackets and no string.
func splitTop(s string) []string {
	var out []string
	depth, from, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.IndexByte("([{<", c) >= 0 && !strings.HasPrefix(s[i:], "<<"):
			depth++
		case strings.IndexByte("<", c) >= 0: // 1<<CAP_CHOWN
			i++
		case strings.IndexByte(")]}>", c) >= 0:
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	if rest := strings.TrimSpace(s[from:]); rest != "" {
		out = append(out, rest)
	}
	return out
}

// compare follows the explained calls through the trace of the process that ended as the command.
func compare(t *testing.T, want []sysCall, traces map[string][]sysCall) {
	t.Helper()
	first, second := findStage(t, traces)
	w := &walker{t: t, want: want[1:], seen: traces[first], inputs: map[string]string{}, moved: map[string]string{}, results: map[string][]string{}}
	w.clone(want[0], traces, first)
	for w.next() {
		if last := w.seen[w.at-1]; last.name == "clone" && second != "" {
			rest := w.pc
			w.next() // the first process ends
			w.follow(rest+1, second, traces)
		}
	}
	for _, rest := range w.want[w.pc:] {
		if rest.name != "execve" && !t.Failed() { // more directories of the PATH may follow
			t.Errorf("the command runs, but more was explained: %s", rest.line)
		}
	}
}

// findStage finds the process that executed the command, and the one it was made by if there were two.
func findStage(t *testing.T, traces map[string][]sysCall) (first, second string) {
	t.Helper()
	for pid, calls := range traces {
		if slices.ContainsFunc(calls, func(c sysCall) bool { return c.name == "execve" && strings.Contains(c.line, `"t\two"`) && c.ret == "0" }) {
			first = pid
		}
	}
	if first == "" {
		t.Fatal("no process has executed the command")
	}
	for pid, calls := range traces {
		if slices.ContainsFunc(calls, func(c sysCall) bool {
			return c.name == "clone" && strings.Contains(c.line, "CLONE_PARENT") && c.ret == first
		}) {
			return pid, first
		}
	}
	return first, ""
}

// walker goes through the explained calls as the results of the seen ones lead it.
type walker struct {
	t       *testing.T
	want    []sysCall
	seen    []sysCall
	pc, at  int
	inputs  map[string]string   // numbers of files by their names
	moved   map[string]string   // the numbers that they have in the stage, until it is executed
	results map[string][]string // what the calls of a name have returned
}

// clone compares the call that makes the process, which another one makes.
func (w *walker) clone(want sysCall, traces map[string][]sysCall, pid string) {
	w.t.Helper()
	for _, calls := range traces {
		for _, c := range calls {
			ret, _, _ := strings.Cut(c.ret, " ")
			if c.name == want.name && ret == pid {
				w.equal(want, c)
				return
			}
		}
	}
	w.t.Errorf("no %s has made process %s", want.name, pid)
}

// follow goes on with another process at an explained call.
func (w *walker) follow(pc int, pid string, traces map[string][]sysCall) {
	w.pc, w.at, w.seen = pc, 0, traces[pid]
}

// next compares one call and reports whether more are to come.
func (w *walker) next() bool {
	w.t.Helper()
	if w.at >= len(w.seen) || w.pc >= len(w.want) || w.t.Failed() {
		return false
	}
	want, got := w.want[w.pc], w.seen[w.at]
	w.equal(want, got)
	w.move(want, got)
	w.pc, w.at = w.pc+1+w.skip(want, got), w.at+1
	for got.name == "execveat" && !got.failed() && w.pc < len(w.want) && w.want[w.pc].name == "execve" {
		w.pc++ // what would have been tried next
	}
	ret, _, _ := strings.Cut(got.ret, " ")
	w.results[got.name] = append(w.results[got.name], ret)
	return got.name != "execve" || got.failed()
}

// move notes the numbers that files get before the stage is executed: the first ones, since the socket gets more.
func (w *walker) move(want, got sysCall) {
	switch {
	case w.moved == nil:
	case got.name == "dup3":
		name := strings.Trim(want.args[0], "<>")
		if _, ok := w.moved[name]; !ok {
			w.moved[name] = want.args[1]
		}
	case strings.HasPrefix(got.name, "execve") && !got.failed():
		maps.Copy(w.inputs, w.moved)
		w.moved = nil
	}
}

var tolerates = regexp.MustCompile(`^tolerates ([A-Z0-9, ]+)(?:: skips (\d+))?`)

// skip returns how many of the following calls are left out after this result.
func (w *walker) skip(want, got sysCall) int {
	w.t.Helper()
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	m := tolerates.FindStringSubmatch(want.note)
	if got.failed() {
		errno := strings.Fields(got.ret)[1]
		if m == nil || !slices.Contains(strings.Split(m[1], ", "), errno) {
			w.t.Errorf("%s\nis not said to be tolerated: %s", got.line, want.line)
			return 0
		}
		return number(m[2])
	}
	rest := want.note
	if m != nil {
		_, rest, _ = strings.Cut(want.note, "; ")
	}
	if n, ok := strings.CutPrefix(rest, "if 0, skips "); ok && got.ret == "0" {
		return number(n)
	}
	if n, ok := strings.CutPrefix(rest, "skips "); ok {
		return number(n)
	}
	return 0
}

func (w *walker) equal(want, got sysCall) {
	w.t.Helper()
	if want.name != got.name {
		w.t.Errorf("explained %s\nseen      %s", want.line, got.line)
		return
	}
	body := got.line[len(got.name)+1:]
	body = body[:strings.LastIndex(body, ") ")]
	if i := strings.Index(body, " => {"); i >= 0 { // what clone3 has changed
		body = body[:i] + body[i+strings.Index(body[i:], "}")+1:]
	}
	got.args = splitTop(body)
	if got.name == "clone" { // which strace shows with names and in another order
		want.args, got.args = want.args[:1], []string{strings.TrimPrefix(got.args[1], "flags=")}
	}
	for i, a := range want.args {
		if i >= len(got.args) {
			if a != "0" { // strace leaves out unused arguments
				w.t.Errorf("explained %s\nseen      %s", want.line, got.line)
			}
			continue
		}
		if !w.same(a, got.args[i]) {
			w.t.Errorf("argument %d differs\nexplained %s\nseen      %s", i, want.line, got.line)
		}
	}
}

// same compares an argument as Explain shows it with how strace shows it.
func (w *walker) same(want, got string) bool {
	if i := strings.Index(got, " /*"); i >= 0 && strings.IndexByte("\"{[", got[0]) < 0 {
		got = got[:i]
	}
	switch {
	case got == fmt.Sprintf("%#x", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC): // of TIOCGPTPEER, which strace does not decode
		return want == "O_RDWR|O_NOCTTY|O_CLOEXEC"
	case strings.HasPrefix(want, "<"):
		return w.sameFile(strings.Trim(want, "<>"), got)
	case strings.HasPrefix(want, "sync "):
		return got[0] == '"' && int(unquoteC(got)[0]) == atoi(want[len("sync "):])
	case strings.HasPrefix(want, `"`):
		a, b := unquoteC(want), unquoteC(got)
		return a == b || strings.HasSuffix(want, "...") && strings.HasPrefix(b, a)
	case strings.HasPrefix(want, "[") && strings.HasPrefix(got, "["):
		a, b := splitTop(want[1:len(want)-1]), splitTop(got[1:len(got)-1])
		return slices.EqualFunc(a, b, w.same)
	case strings.HasPrefix(want, "{") && strings.HasPrefix(got, "{"):
		return w.sameFields(want, got)
	case want == "..." || want == "NULL" && got == "0" || want == "0" && got == "NULL":
		return true
	}
	return slices.Equal(flagSet(want), flagSet(got))
}

// sameFile compares a descriptor that is shown by name: the file of one name has one number, and a result is one that
// the call has returned.
func (w *walker) sameFile(name, got string) bool {
	call, _, _ := strings.Cut(name, " ")
	if call == "word" {
		return true // its content is computed
	}
	if list, ok := w.results[call]; ok && slices.Contains(list, got) {
		return true
	}
	if have, ok := w.inputs[name]; ok {
		return have == got
	}
	w.inputs[name] = got
	_, err := strconv.Atoi(got)
	return err == nil
}

// sameFields compares structs: what is explained must be as seen; strace may show more members.
func (w *walker) sameFields(want, got string) bool {
	fields := map[string]string{}
	for _, f := range splitTop(got[1 : len(got)-1]) {
		k, v, _ := strings.Cut(f, "=")
		fields[k] = v
	}
	for _, f := range splitTop(want[1 : len(want)-1]) {
		if f == "..." {
			continue
		}
		k, v, _ := strings.Cut(f, "=")
		have, ok := fields[k]
		if !ok || !w.same(v, have) {
			return false
		}
	}
	return true
}

// flagSet splits flags and brings numbers into one form.
func flagSet(s string) []string {
	parts := strings.Split(s, "|")
	for i, p := range parts {
		product, number := int64(1), true
		for f := range strings.SplitSeq(p, "*") {
			n, err := strconv.ParseInt(f, 0, 64)
			number = number && err == nil
			product *= n
		}
		if number {
			parts[i] = strconv.FormatInt(product, 10)
		}
	}
	slices.Sort(parts)
	return parts
}

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

// unquoteC takes the quotes and escapes from a string.
func unquoteC(s string) string {
	s = strings.TrimSuffix(s, "...")
	if len(s) < 2 || s[0] != '"' {
		return s
	}
	s = s[1 : len(s)-1]
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if k := strings.IndexByte("abtnvfr", s[i]); k >= 0 {
			b.WriteByte("\a\b\t\n\v\f\r"[k])
			continue
		}
		base, from, most := 8, i, 3
		if s[i] == 'x' {
			base, from, most = 16, i+1, 2
		}
		to := from
		for to < len(s) && to < from+most && (s[to] >= '0' && s[to] <= '7' || base == 16 && strings.IndexByte("0123456789abcdef", s[to]) >= 0) {
			to++
		}
		if to == from {
			b.WriteByte(s[i])
			continue
		}
		n, _ := strconv.ParseUint(s[from:to], base, 8)
		b.WriteByte(byte(n))
		i = to - 1
	}
	return b.String()
}

// The steps that a traced start reports are those that Explain prints, and what comes before them is the first hop.
func TestTraceAgreesWithExplain(t *testing.T) {
	for name, tt := range explained {
		if tt.user == isRoot() || tt.many || name == "terminal" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			needCgroup(t, tt.need)
			var traced []string
			opts := append(tt.opts(testutil.Busybox(t), t.TempDir()), WithCommand("true"))
			c := newContainer(t, append(opts, WithTrace(&Trace{StepStart: func(i StepInfo) {
				traced = append(traced, strings.TrimSpace(i.Step+" "+i.Object))
			}}))...)
			steps := stepsOf(t, c)
			if err := c.Run(testContext(t)); err != nil {
				t.Fatal(err)
			}
			hop := slices.Index(steps, "execute the stage") + 1
			if !slices.Equal(steps[hop:], traced) {
				t.Errorf("explained %q\ntraced    %q", steps[hop:], traced)
			}
		})
	}
}

// stepsOf returns the names of the steps that Explain prints.
func stepsOf(t *testing.T, c *Container) []string {
	t.Helper()
	var b strings.Builder
	if err := c.Explain(testContext(t), &b); err != nil {
		t.Fatal(err)
	}
	var steps []string
	for line := range strings.Lines(b.String()) {
		if s, ok := strings.CutPrefix(line, "# "); ok {
			steps = append(steps, strings.TrimSpace(s))
		}
	}
	return steps
}

// The order of the default container's steps is forced in many places, mostly by security: a change is to be seen.
// What depends on the machine is left out: which cgroups there are, and with them when their namespace is made, which paths
// exist to be hidden.
func TestDefaultSteps(t *testing.T) {
	testutil.NeedRoot(t)
	steps := stepsOf(t, newContainer(t, WithCommand("true")))
	for i := range steps {
		steps[i] = strings.Replace(steps[i], "CLONE_NEWNS|CLONE_NEWCGROUP|", "CLONE_NEWNS|", 1)
	}
	got := slices.DeleteFunc(steps, func(s string) bool {
		for _, p := range []string{"join cgroup", "make namespaces CLONE_NEWCGROUP", "open layer", "make read-only /", "mask /", "mount cgroup", "cover the empty root"} {
			if strings.HasPrefix(s, p) {
				return true
			}
		}
		return false
	})
	hint, other := "since 6.15: ", "before 6.15: "
	if !rootfs.Probe().DetachedLayers {
		hint, other = other, hint
	}
	var want []string
	for s := range strings.Lines(strings.TrimSpace(defaultSteps)) {
		if !strings.HasPrefix(s, other) {
			want = append(want, strings.TrimSpace(strings.TrimPrefix(s, hint)))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

const defaultSteps = `
make the first process
keep descriptors for its next program
execute the stage
name the process
start a new session
since 6.15: clear file creation mask
since 6.15: make writable layer
since 6.15: make overlay of 1 layers
enter a new network namespace
enter an empty mount namespace
make namespaces CLONE_NEWNS|CLONE_NEWUTS|CLONE_NEWIPC
before 6.15: clear file creation mask
before 6.15: make writable layer
before 6.15: attach layers 1
before 6.15: mount overlay of 1 layers
make it the root
before 6.15: detach the old root
mount proc on /proc
mount tmpfs on /dev
make device /dev/null
make device /dev/zero
make device /dev/full
make device /dev/random
make device /dev/urandom
make device /dev/tty
make links in /dev
mount devpts on /dev/pts
mount tmpfs on /dev/shm
mount mqueue on /dev/mqueue
mount sysfs on /sys
set hostname caisson
show the host the root directory
connect standard streams
begin a session keyring
look for true
bound capabilities
become user 0
set capabilities
close all other descriptors at exec
unblock signals
set umask
wait for the keeper
limit RLIMIT_NOFILE
set no_new_privs
filter system calls
execute true
`

// A function of a trace may end the start of which it is told.
func TestTraceEndsStart(t *testing.T) {
	old := callGrace
	callGrace = 50 * time.Millisecond
	t.Cleanup(func() { callGrace = old }) // after the leaks were looked for, hence after the last use
	for name, test := range map[string]struct {
		end  func(context.Context, *Container) error
		want error
	}{
		"stop":  {func(ctx context.Context, c *Container) error { return c.Stop(ctx, 0) }, ErrStopped},
		"close": {func(_ context.Context, c *Container) error { return c.Close() }, ErrClosed},
		"kill":  {func(_ context.Context, c *Container) error { return c.Signal(unix.SIGKILL) }, ErrStopped},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			ctx := testContext(t)
			var c *Container
			ended := make(chan error, 1)
			c = newContainer(t, WithCommand("/bin/sleep", "1000"), WithTrace(&Trace{StepStart: onceAStep(func() { ended <- test.end(ctx, c) })}))
			p, err := c.Start(ctx) // the command may have been executed when the function is called
			if err != nil && !errors.Is(err, test.want) {
				t.Errorf("start: %v", err)
			}
			if err := inTime(t, ended); err != nil {
				t.Error(err)
			}
			if p == nil {
				return
			}
			if r, err := p.Wait(ctx); err != nil || r.Signal != unix.SIGKILL {
				t.Errorf("%+v, %v", r, err)
			}
		})
		t.Run(name+" of a created one", func(t *testing.T) {
			noLeaks(t)
			ctx := testContext(t)
			var c *Container
			ended := make(chan error, 1)
			tell := onceAStep(func() { ended <- test.end(ctx, c) })
			var started atomic.Bool
			c = newContainer(t, WithCommand("/bin/sleep", "1000"), WithTrace(&Trace{StepStart: func(s StepInfo) {
				if started.Load() {
					tell(s)
				}
			}}))
			if _, err := c.Create(ctx); err != nil {
				t.Fatal(err)
			}
			started.Store(true)
			_, _ = c.Start(ctx) // the command may have been executed
			if err := inTime(t, ended); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Error(err)
			}
		})
	}
}

// onceAStep calls f at the first step.
func onceAStep(f func()) func(StepInfo) {
	var once sync.Once
	return func(StepInfo) { once.Do(f) }
}
