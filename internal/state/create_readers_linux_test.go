package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// beside calls f again and again, in two goroutines, until the test calls what is returned.
func beside(f func()) (stop func()) {
	over := make(chan struct{})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					f()
					time.Sleep(20 * time.Microsecond)
				}
			}
		})
	}
	return func() { close(over); all.Wait() }
}

// Who looks at a directory, or takes away what a killed program has left, does not keep its id from who makes a container.
func TestCreateBesideReaders(t *testing.T) {
	d := openTemp(t)
	look := func(lock func(*Entry) error, then func(*Entry)) func() {
		return func() {
			e, err := d.Open("web")
			if err != nil {
				return
			}
			defer e.Close()
			if _, err := e.Read(); errors.Is(err, ErrNotFound) && lock(e) == nil {
				then(e)
				e.Unlock()
			}
		}
	}
	for name, f := range map[string]func(){
		"asked for": look((*Entry).Probe, func(*Entry) {}),
		"recovered": look(func(e *Entry) error { return e.Lock(false) }, func(e *Entry) {
			if _, err := e.Read(); errors.Is(err, ErrNotFound) {
				_ = e.Remove()
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			stop := beside(f)
			defer stop()
			for range 100 {
				e, err := d.Create("web", none)
				if err != nil {
					t.Fatal(err)
				}
				check(t, e.Write(record(Creating)))
				check(t, e.Remove())
				e.Close()
			}
		})
	}
}

// One that has run before is no leftover, at whatever moment its monitor was killed.
func TestLeftover(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	f, err := e.CreateStatus()
	check(t, err)
	defer f.Close()
	for _, c := range []struct {
		phase string
		run   int
		want  bool
	}{{Creating, 0, true}, {Running, 0, true}, {Running, 1, true}, {Running, 2, false}, {Created, 0, false}, {Stopped, 1, false}, {Restarting, 2, false}} {
		r := record(c.phase)
		r.Run = c.run
		if got := e.Leftover(r); got != c.want {
			t.Errorf("%s, run %d: %v", c.phase, c.run, got)
		}
		if got := e.Starting(r); got != (c.want || c.phase == Running) {
			t.Errorf("%s, run %d: starting: %v", c.phase, c.run, got)
		}
	}
	if _, err := f.WriteAt(Released(time.Now()), ReleasedAt); err != nil {
		t.Fatal(err)
	}
	if r := record(Running); e.Starting(r) {
		t.Error("begun, and still starting")
	}
}

// Wishes that are kept anew are read as they were or as they are.
func TestWishIsWhole(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	old, now := bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<17)
	check(t, e.WriteWish(old))
	stop := beside(func() {
		if b, err := e.Wish(); err != nil || !bytes.Equal(b, old) && !bytes.Equal(b, now) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
	defer stop()
	for range 200 {
		check(t, e.WriteWish(now))
		check(t, e.WriteWish(old))
	}
}

// A record that is replaced is read as it was or as it is, and what it was is not left beside it: also where the two exchange their names, which those do
// that hold no longer than the machine runs.
func TestRecordIsWhole(t *testing.T) {
	d := openTemp(t)
	e := create(t, d, "web")
	brief, lasting := record(Creating), record(Creating)
	brief.Monitor, brief.Things, brief.Hooks, brief.Hostname = Process{}, nil, nil, strings.Repeat("a", 1<<14)
	lasting.Things = []Thing{{Owner: "net", Version: 1, Data: json.RawMessage(`{}`)}}
	if brief.lasts() || !lasting.lasts() {
		t.Fatal("what is to be undone after a reboot is what lasts")
	}
	check(t, e.Write(brief))
	stop := beside(func() {
		if r, err := e.Read(); err != nil || (r.Hostname != brief.Hostname) != (len(r.Things) == 1) {
			t.Errorf("%+v, %v", r, err)
		}
	})
	defer stop()
	for range 100 {
		for _, r := range []*Record{lasting, brief, brief} {
			check(t, e.Write(r))
			if names, err := os.ReadDir(e.Path()); err != nil || len(names) != 1 {
				t.Fatalf("%v, %v", names, err)
			}
		}
	}
}
