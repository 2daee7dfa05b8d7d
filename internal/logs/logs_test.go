package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, cfg Config) *Writer {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("logs are written on Linux")
	}
	w, err := Open(cfg, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func config(t testing.TB, size int64, files int) Config {
	return Config{Path: filepath.Join(t.TempDir(), "c.log"), MaxSize: size, MaxFiles: files}
}

// all reads a log, joined with the streams.
func all(t testing.TB, path string, o Options) (out []string) {
	t.Helper()
	for e, err := range Read(context.Background(), path, o, nil) {
		if err != nil {
			t.Fatal(err)
		}
		text := e.Text
		if e.Partial {
			text += "…"
		}
		out = append(out, e.Stream.String()[3:]+":"+text)
	}
	return out
}

func TestWrite(t *testing.T) {
	for _, f := range []Format{JSONLines, Plain} {
		cfg := config(t, 1<<20, 2)
		cfg.Format = f
		w := open(t, cfg)
		w.Write(Stdout, []byte("one\ntw"))
		w.Write(Stderr, []byte("\"err\"\\ \t\r\x01\n\n"))
		w.Write(Stdout, []byte("o\nthree"))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w.Write(Stdout, []byte("late\n"))
		want := []string{"out:one", "err:\"err\"\\ \t\r\x01", "err:", "out:two", "out:three…"}
		if got := all(t, cfg.Path, Options{}); !slices.Equal(got, want) {
			t.Errorf("%q, not %q", got, want)
		}
		if st, err := os.Stat(cfg.Path); err != nil || st.Mode() != 0o600 {
			t.Error(st, err)
		}
	}
}

// A long line is divided, not within a character, and nothing is lost or added.
func TestLongLine(t *testing.T) {
	for _, n := range []int{MaxText - 1, MaxText, MaxText + 1, 3*MaxText + 5} {
		for _, chunk := range []int{1 << 20, 1000, MaxText} {
			cfg := config(t, 1<<30, 1)
			w := open(t, cfg)
			text := strings.Repeat("é€", n)[:n]
			text = strings.ToValidUTF8(text, "x")
			for c := range slices.Chunk([]byte(text+"\nnext\n"), chunk) {
				w.Write(Stdout, c)
			}
			w.Close()
			var got strings.Builder
			for e, err := range Read(context.Background(), cfg.Path, Options{}, nil) {
				if err != nil || len(e.Text) > MaxText {
					t.Fatal(len(e.Text), err)
				}
				got.WriteString(e.Text)
				if !e.Partial {
					got.WriteByte('\n')
				}
			}
			if got.String() != text+"\nnext\n" {
				t.Errorf("%d in pieces of %d: %d bytes differ", n, chunk, got.Len())
			}
		}
	}
}

func TestRotate(t *testing.T) {
	cfg := config(t, 300, 3)
	w := open(t, cfg)
	for i := range 100 {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i))
	}
	w.Close()
	w = open(t, cfg) // numbers go on
	w.Write(Stdout, []byte(strings.Repeat("x\n", 40)))
	w.Close()
	gens, err := generations(cfg.Path)
	if err != nil || len(gens) != 2 || gens[1].n != gens[0].n+1 || gens[0].n < 20 {
		t.Error(gens, err)
	}
	for _, name := range []string{cfg.Path, gens[0].name, gens[1].name} {
		if st, err := os.Stat(name); err != nil || st.Size() > 300 || st.Size() < 60 || st.Mode() != 0o600 {
			t.Error(st, err)
		}
	}
	if got := all(t, cfg.Path, Options{}); len(got) < 8 || len(got) > 12 || got[0] != "out:x" {
		t.Error(got)
	}
	if l, _ := filepath.Glob(cfg.Path + "*"); len(l) != 3 {
		t.Error(l)
	}
	cfg = config(t, 300, 1)
	w = open(t, cfg)
	w.Write(Stdout, []byte(strings.Repeat("x\n", 40)))
	if l, _ := filepath.Glob(cfg.Path + "*"); len(l) != 1 {
		t.Error(l)
	}
}

func TestTailAndFilters(t *testing.T) {
	cfg := config(t, 2000, 100)
	w := open(t, cfg)
	for i := range 100 {
		w.Write(Stdout, fmt.Appendf(nil, "o%d\n", i))
		w.Write(Stderr, fmt.Appendf(nil, "e%d\n", i))
	}
	for _, n := range []int{1, 3, 50, 150, 200, 500} {
		got := all(t, cfg.Path, Options{Tail: n})
		if want := min(n, 200); len(got) != want || got[len(got)-1] != "err:e99" {
			t.Errorf("%d: %d", n, len(got))
		}
		if got := all(t, cfg.Path, Options{Tail: n, Streams: []Stream{Stdout}}); len(got) != min(n, 100) || got[len(got)-1] != "out:o99" {
			t.Errorf("%d: %d of stdout", n, len(got))
		}
	}
	now := time.Now()
	for len(all(t, cfg.Path, Options{Since: now})) == 0 {
		w.Write(Stdout, []byte("new\n"))
	}
	if got := all(t, cfg.Path, Options{Since: now}); slices.Contains(got, "out:o99") {
		t.Error(got)
	}
	if got := all(t, cfg.Path, Options{Until: now, Tail: 1, Follow: true}); len(got) != 1 || got[0] != "err:e99" {
		t.Error(got)
	}
}

// Readers that follow see every line in order, however often the files change places.
func TestFollow(t *testing.T) {
	cfg := config(t, 4000, 10000)
	w := open(t, cfg)
	const lines = 5000
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			n := 0
			for e, err := range Read(context.Background(), cfg.Path, Options{Follow: true}, ended) {
				if err != nil || e.Text != fmt.Sprint("line ", n) {
					t.Errorf("%d: %v %v", n, e, err)
					return
				}
				n++
			}
			if n != lines {
				t.Errorf("%d lines", n)
			}
		})
	}
	for i := range lines {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i))
	}
	close(ended)
	wg.Wait()
}

// The last error is that of the context, at once.
func TestFollowContext(t *testing.T) {
	cfg := config(t, 4000, 2)
	w := open(t, cfg)
	w.Write(Stdout, []byte("a\n"))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var last error
	for e, err := range Read(ctx, cfg.Path, Options{Follow: true}, make(chan struct{})) {
		if last = err; err == nil && e.Text == "a" {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Error(last)
	}
	n := 0
	for range Read(context.Background(), cfg.Path, Options{Follow: true}, nil) {
		n++
		break
	}
	if n != 1 {
		t.Error(n)
	}
}

// What a killed writer left of an entry is cut off; what no writer of ours left is told of.
func TestTorn(t *testing.T) {
	cfg := config(t, 1<<20, 2)
	w := open(t, cfg)
	w.Write(Stdout, []byte("a\nb\n"))
	if _, err := Open(cfg, nil); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	w.Close()
	f, err := os.OpenFile(cfg.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"log":"c\n","str`)
	f.Close()
	if got := all(t, cfg.Path, Options{}); len(got) != 2 {
		t.Error(got)
	}
	w = open(t, cfg)
	w.Write(Stdout, []byte("d\n"))
	w.f.WriteString("rubbish\n" + strings.Repeat("y", 3*maxLine) + "\n")
	w.Write(Stdout, []byte("e\n"))
	var texts []string
	faults := 0
	for e, err := range Read(context.Background(), cfg.Path, Options{}, nil) {
		if errors.Is(err, ErrCorrupt) {
			faults++
		}
		texts = append(texts, e.Text)
	}
	if got := strings.Join(texts, " "); got != "a b d   e" || faults != 2 {
		t.Errorf("%q, %d", got, faults)
	}
	if got := all(t, cfg.Path, Options{Tail: 1}); len(got) != 1 || got[0] != "out:e" {
		t.Error(got)
	}
}

// What cannot be written is counted, and the writer goes on.
func TestLost(t *testing.T) {
	cfg := config(t, 1<<20, 2)
	told := 0
	w, err := Open(cfg, func(error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	good := w.f
	if w.f, err = os.Open(cfg.Path); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("a\nb\n"))
	w.f.Close()
	w.f = good
	w.Write(Stdout, []byte("c\n"))
	if w.Lost() != 2 || told != 1 {
		t.Error(w.Lost(), told)
	}
	if got := all(t, cfg.Path, Options{}); len(got) != 1 {
		t.Error(got)
	}
	w.Close()
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, nil, 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, dir, filepath.Join(dir, "none", "x")} {
		if w, err := Open(Config{Path: path, MaxSize: 1, MaxFiles: 1}, nil); err == nil {
			w.Close()
			t.Error(path)
		}
	}
}

// FuzzParse: no line makes the parser do anything but answer, and what it takes it writes again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-01-02T15:04:05.123456789Z","attrs":{"a":"b"}}`))
	f.Add([]byte(`2016-10-06T00:17:09.669794202Z stdout P:x text`))
	f.Add([]byte(`2016-10-06T00:17:09Z stderr F `))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Parse(line)
		if err != nil || e.Time.Year() < 0 || e.Time.Year() > 9999 {
			return
		}
		for _, format := range []Format{JSONLines, Plain} {
			text := []byte(e.Text)
			if format == JSONLines {
				text = bytes.ToValidUTF8(text, []byte("\ufffd"))
			}
			if format == Plain && bytes.ContainsRune(text, '\n') {
				continue
			}
			if format == JSONLines && e.Partial && bytes.HasSuffix(text, []byte("\n")) {
				continue
			}
			b := format.Append(nil, e.Time, e.Stream, text, e.Partial)
			again, err := Parse(b[:len(b)-1])
			if err != nil || again.Text != string(text) || again.Stream != e.Stream || again.Partial != e.Partial || !again.Time.Equal(e.Time) {
				t.Fatalf("%q: %+v, then %+v, %v", b, e, again, err)
			}
		}
	})
}

// FuzzText: any bytes become one line of JSON that others can read.
func FuzzText(f *testing.F) {
	f.Add([]byte("a\x00\xff\"\\\u2028 \x7f"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := JSONLines.Append(nil, time.Unix(0, 0), Stdout, text, true)
		var v struct{ Log string }
		if err := json.Unmarshal(b, &v); err != nil || bytes.Count(b, []byte("\n")) != 1 {
			t.Fatalf("%q: %v", b, err)
		}
		if want := string(text); strings.ToValidUTF8(want, "") == want && v.Log != want {
			t.Fatalf("%q, not %q", v.Log, want)
		}
	})
}

// FuzzFile: whatever stands in the files, reading ends, and the last entries are those at the end.
func FuzzFile(f *testing.F) {
	f.Add([]byte("{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T15:04:05Z\"}\n{\n"), []byte("x"), 1)
	f.Fuzz(func(t *testing.T, a, b []byte, tail int) {
		path := filepath.Join(t.TempDir(), "l")
		if err := errors.Join(os.WriteFile(path+".1", a, 0o600), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		var whole, last []Entry
		for e, err := range Read(context.Background(), path, Options{}, nil) {
			if err == nil {
				whole = append(whole, e)
			}
		}
		tail = max(tail&15, 1)
		for e, err := range Read(context.Background(), path, Options{Tail: tail}, nil) {
			if err == nil {
				last = append(last, e)
			}
		}
		if n := min(tail, len(whole)); !slices.Equal(last, whole[len(whole)-n:]) {
			t.Fatalf("%v, not the end of %v", last, whole)
		}
	})
}
