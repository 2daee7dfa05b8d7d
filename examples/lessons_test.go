//go:build linux

package examples_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamespaces runs the lesson of each kind and checks that it shows what it is about.
func TestNamespaces(t *testing.T) {
	for kind, want := range map[string][]string{
		"mount":   {`^outside +\d+ +empty$`, `^inside +\d+ +holds note$`, `^mounts on the directory: outside 0, inside 1$`},
		"pid":     {`^inside, I am process 1 and see these: 1 2$`, `^outside, it is process \d+ of \d+, and 2 are in`, `^process 1 has ended, and of the 2 there are left: 0$`},
		"network": {`^outside  connect .*: works$`, `^outside  take .*: address already in use$`, `^inside   devices: lo \(down\)$`, `^inside   connect .*: network is unreachable$`, `^inside   take .*: works$`},
		"ipc":     {`^outside: segment 0xca15 is there$`, `^inside:  segment 0xca15 is missing, .* 0 entries$`},
		"uts":     {`^inside:  box$`, `^inside:  renamed, `, `^outside: .*, still the same: true$`},
		"user":    {`^inside:  I am user 0 with capabilities [0-9a-f]*f{8}$`, `owner 65534 here, and I may not touch it$`, `that I made has owner 0$`, `^inside:  I may not rename the host$`},
		"cgroup":  {`^with the host's cgroup namespace`, `^with a cgroup namespace of its own, the container reads that it is in\n\t/$`},
		"time":    {`^inside: .* which is 1000 days more$`},
	} {
		t.Run(kind, func(t *testing.T) {
			asEach(t, func(t *testing.T, c caller) { c.run(t, kind).want(t, 0, want...) })
		})
	}
}

// TestUserOwner: what root inside makes belongs to whom root inside is outside.
func TestUserOwner(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := c.run(t, "user")
		if c.root() {
			r.want(t, 0, `^inside:  id inside, id outside, how many: 0 [1-9]\d{4,} \d+$`)
			return
		}
		r.want(t, 0, `^outside: I am user (\d+)$`)
		if me := strings.Split(strings.SplitAfter(r.stdout, "I am user ")[1], "\n")[0]; !strings.Contains(r.stdout, "that file has owner "+me+"\n") {
			t.Errorf("the file does not belong to %s: %v", me, r)
		}
	})
}

// TestCgroupHidden: with a group of its own, the container sees its path on the host only without a cgroup namespace.
func TestCgroupHidden(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		needLimits(t, c)
		host, own, _ := strings.Cut(c.run(t, "cgroup").stdout, "with a cgroup namespace of its own")
		if !strings.Contains(host, "/caisson-lesson") || strings.Contains(own, "caisson-lesson") {
			t.Errorf("host's namespace: %s\nown: %s", host, own)
		}
	})
}

func TestJail(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := c.run(t, "jail")
		r.want(t, 0, `^chroot: locked up, / holds: nothing$`, `^chroot: after the escape, / holds: .*\betc\b`, `^chroot: ESCAPED. The treasure outside is gold\.$`,
			`^pivot_root: locked up, / holds: nothing$`, `^pivot_root: after the escape, / holds: hole$`, `^pivot_root: HELD\. .*no such file or directory$`)
		if left, _ := filepath.Glob(filepath.Join(c.dir, "*")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func TestExplain(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		want := `^strace saw the same \d{2,} calls in the same order\.$`
		if _, err := exec.LookPath("strace"); err != nil {
			t.Log("strace is missing, so the program is only printed")
			want = `^strace is not installed`
		}
		c.run(t, "explain", "id", "-u").want(t, 0, `^pivot_root\("\.", "\."\)$`, `^# execute id$`, want)
	})
}

func TestDoctor(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		c.run(t, "doctor").want(t, 0, `^  yes  kernel +\d`, `^  yes  mount `, `^cgroups$`, `^  yes  start +from start to end in `)
		r := c.run(t, "doctor", "-json")
		var findings []struct{ Area, Name, Answer, Detail, Reason, Remedy string }
		if err := json.Unmarshal([]byte(r.stdout), &findings); err != nil || len(findings) < 15 {
			t.Fatalf("%v: %v", err, r)
		}
		for _, f := range findings {
			if f.Area == "" || f.Name == "" || f.Answer == "" || f.Answer == "no" && f.Reason == "" {
				t.Errorf("incomplete: %+v", f)
			}
			if f.Area == "container" && f.Name == "start" && f.Answer != "yes" {
				t.Errorf("%s: %s", f.Name, f.Reason)
			}
		}
	})
}

// TestReadme: the list of examples names each, and each says how it is run.
func TestReadme(t *testing.T) {
	list, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob("*/main.go")
	nested, nerr := filepath.Glob("*/*/main.go")
	if err != nil || nerr != nil {
		t.Fatal(err, nerr)
	}
	for _, p := range append(programs, nested...) {
		dir := filepath.Dir(p)
		if !strings.Contains(string(list), "]("+dir+")") {
			t.Errorf("README.md does not name %s", dir)
		}
		readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
		if err != nil || !strings.Contains(string(readme), "go run ./examples/"+dir) || !strings.Contains(string(readme), "## What to try next") {
			t.Errorf("%s: a README.md with the command and what to try next: %v", dir, err)
		}
	}
}
