package cgroups

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/testutil"
)

// lender is a group of somebody's: one that this program did not make, as far as its Manager knows, and has a controller
// to hand on, but does not.
type lender struct {
	t   *testing.T
	g   *Group // as a stranger sees it
	dir string
	c   Controllers
}

// newLender makes one with a controller of either kind: those that are taken back at once, and those that stay a moment.
func newLender(t *testing.T, c Controllers) *lender {
	t.Helper()
	needRoot(t)
	m, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if h := m.homes(c); len(h) == 0 || m.layout.Hierarchies[h[0]].Version != 2 {
		t.Skipf("no v2 group can have the controller %s here", c)
	}
	g := newGroup(t, Resources{}, Config{Controllers: c})
	other, err := NewManager()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	stranger, err := other.OpenPaths(g.Paths())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Close() })
	l := &lender{t, stranger, g.unified().path, c}
	l.enabled("", "at first")
	return l
}

func (l *lender) enabled(want, when string) {
	l.t.Helper()
	b, err := os.ReadFile(l.dir + "/cgroup.subtree_control")
	if got := strings.TrimSpace(string(b)); err != nil || got != want {
		l.t.Errorf("enabled %s: %q, not %q (%v)", when, got, want, err)
	}
	if want == "" && readLoan(l.dir) != (loan{}) {
		l.t.Errorf("%s there is a loan: %v", when, readLoan(l.dir))
	}
}

func (l *lender) group(name string) *Group {
	l.t.Helper()
	g, err := l.g.New(l.t.Context(), name, Resources{}, Config{Controllers: l.c})
	if err != nil {
		l.t.Fatal(err)
	}
	return g
}

func remove(t *testing.T, g *Group) {
	t.Helper()
	if err := g.Delete(within(t, patience)); err != nil {
		t.Fatal(err)
	}
}

var lendable = []Controllers{HugeTLB, Pids}

// What was enabled in a group of somebody's is taken back when the last group goes.
func TestControllersTakenBack(t *testing.T) {
	for _, c := range lendable {
		t.Run(c.String(), func(t *testing.T) {
			l := newLender(t, c)
			a, b := l.group("a"), l.group("b")
			remove(t, a)
			l.g.m.TakeBack()
			l.enabled(c.String(), "with one group left")
			began := time.Now()
			remove(t, b)
			if c&frequent != 0 {
				text, err := os.ReadFile(l.dir + "/cgroup.subtree_control")
				if time.Since(began) < idleTime && !strings.Contains(string(text), c.String()) {
					t.Errorf("enabled just after the last group: %q (%v)", text, err)
				}
				ok := testutil.Eventually(patience, func() bool { return readLoan(l.dir) == (loan{}) })
				if !ok {
					t.Error("never taken back")
				}
			}
			l.enabled("", "after the last group")
			remove(t, l.group("again"))
			l.g.m.TakeBack()
			l.enabled("", "after another one")
		})
	}
}

// What others enabled stays, and what others may count on.
func TestControllersOfOthersStay(t *testing.T) {
	l := newLender(t, HugeTLB)
	hand := func(s string) {
		t.Helper()
		if err := os.WriteFile(l.dir+"/cgroup.subtree_control", []byte(s), 0); err != nil {
			t.Fatal(err)
		}
	}
	hand("+hugetlb")
	remove(t, l.group("a"))
	l.enabled("hugetlb", "by somebody else")
	hand("-hugetlb")

	old, young := l.dir+"/old", l.dir+"/young"
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(old)
	a := l.group("a")
	if err := os.Mkdir(young, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(young)
	remove(t, a)
	l.enabled("hugetlb", "beside a group made since")
	if err := os.Remove(young); err != nil {
		t.Fatal(err)
	}
	b := l.group("b")
	if err := os.WriteFile(old+"/cgroup.subtree_control", []byte("+hugetlb"), 0); err != nil {
		t.Fatal(err)
	}
	remove(t, b)
	l.enabled("hugetlb", "beside a group that hands it on")
	if err := os.WriteFile(old+"/cgroup.subtree_control", []byte("-hugetlb"), 0); err != nil {
		t.Fatal(err)
	}
	l.g.m.TakeBack()
	l.enabled("", "beside a group that was there before")
}

// A group that cannot be made leaves nothing enabled either.
func TestControllersOfFailure(t *testing.T) {
	l := newLender(t, HugeTLB)
	_, err := l.g.New(t.Context(), "a", Resources{Unified: map[string]string{"hugetlb.nonsense": "1"}}, Config{Controllers: HugeTLB})
	if err == nil {
		t.Fatal("a file that does not exist was written")
	}
	l.enabled("", "after a failure")
}

// lend is what a program does that is killed: it makes a group, says so, and removes it when told to.
func lend() {
	m, err := NewManager()
	if err != nil {
		panic(err)
	}
	in, err := m.Open(os.Getenv("CGROUPS_TEST_IN"))
	if err != nil {
		panic(err)
	}
	g, err := in.New(context.Background(), "a", Resources{}, Config{Controllers: controllerNamed(os.Getenv("CGROUPS_TEST_LENDS"))})
	if err != nil {
		panic(err)
	}
	if os.Getenv("CGROUPS_TEST_ENDS") != "" {
		if err := g.Delete(context.Background()); err != nil {
			panic(err)
		}
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

// A program that is killed, with its group or just after it, leaves a record by which what it enabled is taken back.
func TestControllersOfKilledProgram(t *testing.T) {
	for _, c := range lendable {
		for _, ends := range []string{"", "1"} {
			t.Run(c.String()+ends, func(t *testing.T) {
				l := newLender(t, c)
				t.Setenv("CGROUPS_TEST_IN", strings.TrimPrefix(l.dir, l.g.unified().h.Mountpoint))
				t.Setenv("CGROUPS_TEST_LENDS", c.String())
				t.Setenv("CGROUPS_TEST_ENDS", ends)
				p := start(t, newGroup(t, Resources{}, Config{Parent: "/"}), "lend")
				p.run()
				if !testutil.Eventually(patience, func() bool { return strings.Contains(p.out.String(), "ready") }) {
					t.Fatalf("it says %q", p.out.String())
				}
				_ = p.Process.Kill()
				_ = p.Wait()
				if ends == "" {
					l.enabled(c.String(), "after the kill")
					if err := os.Remove(l.dir + "/a"); err != nil {
						t.Fatal(err)
					}
				}
				dir, err := journal.Dir()
				if err != nil {
					t.Fatal(err)
				}
				defer dir.Close()
				if !testutil.Eventually(patience, func() bool { // another program may be about it
					_, err = journal.Recover(t.Context(), dir, map[string]journal.Undoer{ControllersOwner: journal.UndoFunc(UndoControllers)})
					return readLoan(l.dir) == loan{}
				}) {
					t.Log(err) // of other programs too
				}
				l.enabled("", "after the recovery")
			})
		}
	}
}

func TestUndoControllersRefuses(t *testing.T) {
	for _, data := range []string{`{`, `{}`, `{"dir":"a"}`, `{"dir":"/a/../b"}`} {
		if err := UndoControllers(t.Context(), 1, []byte(data)); err == nil {
			t.Errorf("%s passes", data)
		}
	}
	if err := UndoControllers(t.Context(), 2, []byte(`{"dir":"/a"}`)); err == nil {
		t.Error("version 2 passes")
	}
	if err := UndoControllers(t.Context(), 1, []byte(`{"dir":"/nowhere"}`)); err != nil {
		t.Errorf("a directory that is gone: %v", err)
	}
}

func TestParseLoan(t *testing.T) {
	for text, want := range map[string]loan{
		"":                              {},
		"7":                             {},
		"x hugetlb":                     {},
		"-1 hugetlb":                    {},
		"7 nonsense":                    {},
		"7 freezer,devices":             {}, // no controllers of v2
		"7 hugetlb":                     {7, HugeTLB},
		"18446744073709551615 cpu,misc": {1<<64 - 1, CPU | Misc},
	} {
		got := parseLoan(text)
		if got != want {
			t.Errorf("%q is %v", text, got)
		}
		if want.controllers != 0 && parseLoan(got.String()) != got {
			t.Errorf("%v does not come back from %q", got, got.String())
		}
	}
}

func FuzzParseLoan(f *testing.F) {
	f.Add("7 hugetlb,misc")
	f.Fuzz(func(t *testing.T, text string) {
		if l := parseLoan(text); l.controllers != 0 && (parseLoan(l.String()) != l || l.controllers&core != 0) {
			t.Errorf("%q is %v", text, l)
		}
	})
}

func dirent(ino uint64, kind byte, name string) []byte {
	size := (19 + len(name) + 8) &^ 7
	b := binary.NativeEndian.AppendUint64(nil, ino)
	b = binary.NativeEndian.AppendUint64(b, 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(size))
	b = append(b, kind)
	return append(b, append([]byte(name), make([]byte, size-19-len(name))...)...)
}

func TestEachDir(t *testing.T) {
	b := bytes.Join([][]byte{dirent(1, unix.DT_DIR, "."), dirent(5, unix.DT_REG, "f"), dirent(9, unix.DT_DIR, "child")}, nil)
	got := ""
	eachDir(b, func(ino uint64, name string) { got += fmt.Sprint(ino, name, " ") })
	if got != "1. 9child " {
		t.Error(got)
	}
}

func FuzzEachDir(f *testing.F) {
	f.Add(dirent(9, unix.DT_DIR, "child"))
	f.Fuzz(func(_ *testing.T, b []byte) { eachDir(b, func(uint64, string) {}) })
}
