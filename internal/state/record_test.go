package state

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func full() *Record {
	n, cpu := uint64(3), int64(1500)
	return &Record{ID: "web", BootID: "6f2b6c1e-0000-4000-8000-000000000001", PIDNS: 4026531836, UID: 1000, Phase: Stopped,
		Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Labels: map[string]string{"app": "shop"},
		Init: Process{4711, 88123}, Keeper: Process{4710, 88122}, OwnPID: true,
		CgroupName: "caisson-web-1-1", Cgroup: map[string]string{"": "/sys/fs/cgroup/caisson-web-1-1"},
		Things:     []Thing{{"netns.bridge", 2, []byte(`{"if":"v1"}`)}},
		StopSignal: 15, Command: []string{"sleep", "1000"}, Hostname: "web", CgroupNS: true,
		Process: []byte(`{"user":"0:0"}`), Isolation: []byte(`[]`),
		Steps:  []Step{{0x801020, "execute", "sleep", "execve", `execve("/bin/sleep")`}},
		Ending: "stopped",
		Result: &Result{ExitCode: -1, Signal: 9, Core: true, Reason: "out of memory", OOMKills: &n, CPU: &cpu, PeakMemory: &n},
	}
}

func TestRecordComesBack(t *testing.T) {
	want := full()
	b, err := want.Format()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("web", b)
	if err != nil {
		t.Fatal(err)
	}
	b2, _ := got.Format()
	if string(b) != string(b2) {
		t.Errorf("%s\nbecame\n%s", b, b2)
	}
	if !reflect.DeepEqual(got.Result, want.Result) || got.Init != want.Init {
		t.Errorf("%+v", got)
	}
}

// What the first schema wrote is read, whatever later releases add. The file is never to be changed.
func TestFirstSchemaIsRead(t *testing.T) {
	b, err := os.ReadFile("testdata/v1/web/state.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("web", b)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(3)
	switch {
	case got.Phase != Stopped, got.Init != Process{4711, 88123}, got.Keeper != Process{4710, 88122}, !got.OwnPID, got.UID != 1000,
		got.Cgroup[""] != "/sys/fs/cgroup/caisson-web-1-1", got.Things[0].Owner != "netns.bridge", got.Result.Signal != 9,
		*got.Result.OOMKills != n, *got.Result.CPU != 1500, got.Labels["app"] != "shop", got.Steps[0].Address != 0x801020,
		!got.Created.Equal(full().Created), got.Ending != "stopped", got.Command[1] != "1000", got.PIDNS != 4026531836:
		t.Errorf("%+v", got)
	}
	st, err := os.ReadFile("testdata/v1/web/status")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseStatus(st)
	if err != nil || s.Released.Unix() != 1700000000 || s.Ended.Unix() != 1700000001 || s.Wait != 7<<8 || s.CPU != 3*time.Millisecond {
		t.Errorf("%+v, %v", s, err)
	}
}

// What the schema of containers with a monitor wrote is read, whatever later releases add. The file is never to be changed.
func TestSecondSchemaIsRead(t *testing.T) {
	b, err := os.ReadFile("testdata/v2/web/state.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("web", b)
	if err != nil {
		t.Fatal(err)
	}
	n, many := uint64(3), uint64(5)
	want := full()
	want.Version, want.Monitor, want.Run, want.Restarts, want.Restart, want.Halted, want.Terminal = 2, Process{4709, 88121}, 3, 2, "on-failure", true, true
	want.CgroupFrom, want.Mounts = map[string]string{"": "/user.slice"}, []Mount{{"/mnt", 41, 2147483689}}
	want.Bundle, want.Rootfs = "/srv/web", "/srv/web/rootfs"
	want.Result.OOMKills, want.Result.PeakMemory, want.Result.LogLost = &n, &n, 1
	want.Result.PeakPids, want.Result.ReadBytes, want.Result.WriteBytes, want.Result.DiskUsed = &many, &many, &many, &many
	var log struct{ Path string }
	var limits struct{ Memory struct{ Max int64 } }
	if err := errors.Join(json.Unmarshal(got.Log, &log), json.Unmarshal(got.Limits, &limits)); err != nil || log.Path != "/var/log/web" || limits.Memory.Max != 64<<20 {
		t.Errorf("%s %s %v", got.Log, got.Limits, err)
	}
	for _, raw := range []*Record{want, got} { // compared above, or by the test of the first schema, but for spaces
		raw.Log, raw.Limits, raw.Process, raw.Isolation, raw.Things[0].Data = nil, nil, nil, nil, nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Record)
		want   error
	}{
		"other directory": {func(r *Record) { r.ID = "db" }, ErrCorrupt},
		"no boot id":      {func(r *Record) { r.BootID = "" }, ErrCorrupt},
		"phase":           {func(r *Record) { r.Phase = "paused" }, ErrCorrupt},
		"negative pid":    {func(r *Record) { r.Init.PID = -1 }, ErrCorrupt},
		"running nobody":  {func(r *Record) { r.Phase, r.Init = Running, Process{} }, ErrCorrupt},
		"no start time":   {func(r *Record) { r.Phase, r.Init = Created, Process{PID: 7} }, ErrCorrupt},
		"no result":       {func(r *Record) { r.Result = nil }, ErrCorrupt},
		"signal":          {func(r *Record) { r.StopSignal = 65 }, ErrCorrupt},
		"relative cgroup": {func(r *Record) { r.Cgroup["cpu"] = "a/b" }, ErrCorrupt},
		"thing of nobody": {func(r *Record) { r.Things[0].Owner = "" }, ErrCorrupt},
	} {
		r := full()
		c.change(r)
		b, err := r.Format()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("web", b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, want := range map[string]error{
		"": ErrCorrupt, "{": ErrCorrupt, "[]": ErrCorrupt, "{}": ErrVersion, `{"version":3}`: ErrVersion, `{"version":2}`: ErrCorrupt, `{"version":1}`: ErrCorrupt,
		`{"version":1,"uid":"root"}`: ErrCorrupt, strings.Repeat(" ", maxRecord+1): ErrCorrupt,
	} {
		if _, err := Parse("web", []byte(text)); !errors.Is(err, want) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, _ := full().Format()
	f.Add(b)
	f.Add([]byte(`{"version":1,"id":"web"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse("web", b)
		if err != nil {
			return
		}
		again, err := r.Format()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("web", again); err != nil {
			t.Fatalf("%q became %q: %v", b, again, err)
		}
	})
}

// ended is a status file of a command that ended with an exit code.
func ended(code int) []byte {
	b := append(NewStatus(), make([]byte, EndedSize)...)
	put := func(at int, v uint64) { binary.NativeEndian.PutUint64(b[at:], v) }
	put(ReleasedAt, 1)
	put(ReleasedAt+8, 1700000000)
	put(EndedAt, 1)
	put(EndedAt+8, 1700000001)
	binary.NativeEndian.PutUint32(b[EndedAt+SiginfoAt+8:], 1)
	binary.NativeEndian.PutUint32(b[EndedAt+SiginfoAt+24:], uint32(code))
	put(EndedAt+RusageAt+8, 1000)
	put(EndedAt+RusageAt+24, 2000)
	return b
}

func TestStatus(t *testing.T) {
	whole := ended(7)
	for name, c := range map[string]struct {
		b               []byte
		released, ended bool
		corrupt         bool
	}{
		"new":       {NewStatus(), false, false, false},
		"released":  {whole[:EndedAt], true, false, false},
		"torn":      {whole[:len(whole)-1], true, false, false},
		"ended":     {whole, true, true, false},
		"too long":  {append(whole[:len(whole):len(whole)], 0), false, false, true},
		"too short": {whole[:EndedAt-1], false, false, true},
		"other":     {make([]byte, len(whole)), false, false, true},
	} {
		s, err := ParseStatus(c.b)
		if errors.Is(err, ErrCorrupt) != c.corrupt || !c.corrupt && (s.Released.IsZero() == c.released || s.Ended.IsZero() == c.ended) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	never := ended(1)
	clear(never[ReleasedAt:EndedAt])
	if s, err := ParseStatus(never); err != nil || !s.Released.IsZero() || s.Ended.IsZero() {
		t.Errorf("ended before it was released: %+v, %v", s, err)
	}
	for code, want := range map[int32]uint32{1: 9 << 8, 2: 9, 3: 9 | 0x80} {
		if got := waitStatus(code, 9); got != want {
			t.Errorf("si_code %d: %#x", code, got)
		}
	}
}

func TestWaitStatus(t *testing.T) {
	info := func(signo, code, status int32) []byte {
		b := make([]byte, SiginfoSize)
		for at, v := range map[int]int32{0: signo, 8: code, 24: status} {
			binary.NativeEndian.PutUint32(b[at:], uint32(v))
		}
		return b
	}
	for _, c := range []struct {
		b    []byte
		want uint32
		ok   bool
	}{
		{info(17, 1, 137), 137 << 8, true}, {info(17, 1, 0), 0, true}, {info(17, 2, 64), 64, true}, {info(17, 3, 11), 11 | 0x80, true},
		{info(17, 1, 256), 0, false}, {info(17, 1, -1), 255 << 8, false}, {info(17, 2, 0), 0, false}, {info(17, 2, 65), 65, false},
		{info(17, 4, 19), 19, false}, {info(0, 1, 3), 3 << 8, false}, {nil, 0, false}, {make([]byte, SiginfoSize+1), 0, false},
	} {
		if got, ok := WaitStatus(c.b); got != c.want || ok != c.ok {
			t.Errorf("%v: %#x, %v", c.b[:min(len(c.b), 28)], got, ok)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(NewStatus())
	f.Add(ended(3))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseStatus(b); err == nil && s.Ended.IsZero() && s.Wait != 0 {
			t.Fatalf("%+v", s)
		}
	})
}
