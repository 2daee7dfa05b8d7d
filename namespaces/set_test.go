package namespaces

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestSetDefaults(t *testing.T) {
	var s Set
	if got := s.New(); got != AllKinds.Without(Time) {
		t.Errorf("zero set makes %v", got)
	}
	s.TimeOffsets.Boottime = time.Hour
	if !s.New().Has(Time) {
		t.Error("offsets do not make a time namespace")
	}
	s = HostSet()
	s.Put(Net, JoinPath("/proc/1/ns/net"))
	if s.New() != 0 || s.Joined() != KindsOf(Net) {
		t.Errorf("new %v, joined %v", s.New(), s.Joined())
	}
	if !s.Get(0).IsDefault() && s.Get(0).validate(0) == nil {
		t.Error("the wish for an invalid kind is valid")
	}
}

func TestSetValidateReportsEveryFault(t *testing.T) {
	s := Set{
		Net: JoinPath("relative"), PID: JoinPID(-1), IPC: JoinFile(nil), Time: Host(), UTS: Host(),
		TimeOffsets: TimeOffsets{Monotonic: 1}, Hostname: strings.Repeat("a", 65), Domainname: "x",
		Cgroup: Namespace{how: 99},
	}
	err := s.Validate()
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("err = %v", err)
	}
	for _, want := range []string{"network namespace", "pid namespace", "ipc namespace", "cgroup namespace", "TimeOffsets", "Hostname", "Domainname"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word on %s in:\n%v", want, err)
		}
	}
}

func TestSetValidate(t *testing.T) {
	for name, c := range map[string]struct {
		s  Set
		ok bool
	}{
		"zero":            {Set{}, true},
		"host":            {HostSet(), true},
		"name":            {Set{Hostname: "box", Domainname: "lan"}, true},
		"name joined":     {Set{Hostname: "box", UTS: JoinPID(1)}, false},
		"name with blank": {Set{Hostname: "a b"}, false},
		"file":            {Set{Net: JoinFile(os.Stdin)}, true},
		"path with NUL":   {Set{Net: JoinPath("/a\x00b")}, false},
		"offsets":         {Set{TimeOffsets: TimeOffsets{Boottime: -time.Second}}, true},
		"offsets joined":  {Set{Time: JoinPID(1), TimeOffsets: TimeOffsets{Boottime: 1}}, false},
	} {
		if err := c.s.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTimeOffsetsText(t *testing.T) {
	o := TimeOffsets{Monotonic: -1500 * time.Millisecond, Boottime: 86400*time.Second + 1}
	if got, want := o.String(), "monotonic -2 500000000\nboottime 86400 1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNamespaceWords(t *testing.T) {
	for want, n := range map[string]Namespace{
		"new": {}, "host": Host(), "join /x": JoinPath("/x"), "join process 7": JoinPID(7), "join nil file": JoinFile(nil),
		"invalid namespace": {how: 77},
	} {
		if n.String() != want {
			t.Errorf("got %q, want %q", n, want)
		}
	}
	if !(Namespace{}).IsDefault() || New().IsDefault() || !New().IsNew() {
		t.Error("default and new are not told apart")
	}
}
