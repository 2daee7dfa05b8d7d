package caisson

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/state"
)

// refusing is a profile under which sethostname(2) fails with an errno that it does not have else.
func refusing(errno uint) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"sethostname"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
}

// recordedWith is a process with a profile as it is read from a record.
func recordedWith(t *testing.T, profile *specs.LinuxSeccomp, change func(*state.Filter)) processSpec {
	t.Helper()
	arch, err := seccomp.Native()
	if err != nil {
		t.Fatal(err)
	}
	p, err := seccomp.Compile(profile, arch)
	if err != nil {
		t.Fatal(err)
	}
	text, err := formatProcess(&processSpec{user: defaultUser, seccomp: profile})
	if err != nil {
		t.Fatal(err)
	}
	f := recordFilter(text, p)
	if f == nil {
		t.Fatal("nothing is recorded of the filter")
	}
	change(f)
	s, err := parseProcess(text, []string{"c"}, f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecordedFilter(t *testing.T) {
	arch, err := seccomp.Native()
	if err != nil {
		t.Fatal(err)
	}
	want, err := seccomp.Compile(refusing(77), arch)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*state.Filter)
		kept   bool
	}{
		"as it was written": {func(*state.Filter) {}, true},
		"of another text":   {func(f *state.Filter) { f.Profile++ }, false},
		"no base64":         {func(f *state.Filter) { f.Code = "?" + f.Code[1:] }, false},
		"half an operation": {func(f *state.Filter) { f.Code = base64.StdEncoding.EncodeToString([]byte("1234")) }, false},
		"nothing":           {func(f *state.Filter) { f.Code = "" }, false},
		"too long": {func(f *state.Filter) {
			f.Code = base64.StdEncoding.EncodeToString(make([]byte, 8*(seccomp.MaxInsns+1)))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := recordedWith(t, refusing(77), tt.change)
			if kept := s.kept.program() != nil; kept != tt.kept {
				t.Errorf("used: %t, want %t", kept, tt.kept)
			}
			got, err := s.filter(arch, 0)
			if err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) || got.Flags != want.Flags {
				t.Errorf("another filter than that of the profile, or %v", err)
			}
			WithSeccomp(refusing(78)).applyProcess(&s)
			if got, err = s.filter(arch, 0); err != nil || bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("the filter of the record is used for another profile, or %v", err)
			}
		})
	}
}

// A filter that asks somebody is made anew each time, and the default one comes with the library.
func TestFilterThatIsNotRecorded(t *testing.T) {
	text := []byte(`{"user":"","seccomp":{"defaultAction":"SCMP_ACT_NOTIFY"}}`)
	if f := recordFilter(text, seccomp.Ask()); f != nil {
		t.Errorf("recorded: %+v", f)
	}
	if f := recordFilter([]byte(`{"user":""}`), &seccomp.Program{Filter: make([]seccomp.Insn, 1)}); f != nil {
		t.Errorf("recorded without a profile: %+v", f)
	}
}

func TestRecordedProfileThatIsNone(t *testing.T) {
	s, err := parseProcess([]byte(`{"user":"0:0","seccomp":{"defaultAction":17}}`), []string{"c"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.profile(); !errors.Is(err, ErrCorruptState) {
		t.Errorf("profile: %v, want ErrCorruptState", err)
	}
	arch, err := seccomp.Native()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.filter(arch, 0); !errors.Is(err, ErrCorruptState) {
		t.Errorf("filter: %v, want ErrCorruptState", err)
	}
}

// What a further process of a loaded container gets is the profile of the container, by the recorded filter and without it.
func TestExecHasTheProfileOfTheRecord(t *testing.T) {
	d := stateDir(t)
	c := detached(t, d, "filtered", sh("sleep 1000"), WithSeccomp(refusing(77)))
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	look := func(want string) {
		t.Helper()
		out, _ := execs(t, load(t, d, "filtered"), "hostname x 2>&1; grep ^Seccomp: /proc/self/status")
		if !strings.Contains(out, want) || !strings.Contains(out, "Seccomp:\t2") {
			t.Errorf("under the profile of the record: %q, want %q", out, want)
		}
	}
	if k := load(t, d, "filtered").spec.process.kept; k.program() == nil {
		t.Fatal("the record has no filter for its profile")
	}
	look("File descriptor in bad state") // EBADFD: 77
	path := filepath.Join(string(d), "filtered", "state.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := state.Parse("filtered", b)
	if err != nil {
		t.Fatal(err)
	}
	// The filter of another profile is not used for this one.
	text := strings.ReplaceAll(string(rec.Process), `"errnoRet":77`, `"errnoRet":95`)
	if text == string(rec.Process) {
		t.Fatalf("no errno in %s", text)
	}
	rec.Process = []byte(text)
	if b, err = codec.MarshalLines(rec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	look("upported") // EOPNOTSUPP: 95
}
