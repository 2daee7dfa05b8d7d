package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// Config says where a log is written, and how.
type Config struct {
	Path     string
	Format   Format
	MaxSize  int64 // of a file, in bytes
	MaxFiles int   // with the current one
}

// Writer writes a log. Its methods can be called from any number of goroutines.
type Writer struct {
	cfg  Config
	told func(error)

	mu      sync.Mutex
	f       *os.File // nil after Close
	size    int64
	last    uint64 // generation
	pending [2][]byte
	lost    uint64
	toldAt  time.Time
}

// busyTime is for how long a log may seem to have another writer: a process that this program has just made, anywhere in it, has the lock of a writer
// that was closed until it executes something.
const busyTime = 500 * time.Millisecond

// Open opens a log for writing and appends to what is there. told is called with why something could not be written, or
// the files not be changed, at most once a second; it must not call the writer.
func Open(cfg Config, told func(error)) (*Writer, error) {
	w := &Writer{cfg: cfg, told: told}
	patience := time.Now().Add(busyTime)
	for tries := 0; tries < 100; {
		f, err := openFile(cfg.Path, os.O_CREATE|os.O_RDWR|os.O_APPEND)
		if err != nil {
			return nil, err
		}
		err = lock(f)
		if errors.Is(err, ErrBusy) && time.Now().Before(patience) {
			f.Close()
			time.Sleep(time.Millisecond)
			continue
		}
		if err == nil && !isCurrent(f, cfg.Path) { // it was rotated in between
			f.Close()
			tries++
			continue
		}
		if err == nil {
			w.size, err = mend(f)
		}
		var gens []generation
		if err == nil { // and nobody else rotates it from now on
			gens, err = generations(cfg.Path)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		if len(gens) > 0 {
			w.last = gens[len(gens)-1].n
		}
		w.f = f
		return w, nil
	}
	return nil, &os.PathError{Op: "open", Path: cfg.Path, Err: ErrBusy}
}

// mend cuts off what a killed writer has left of an entry, and returns the size.
func mend(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := st.Size()
	buf := make([]byte, min(size, maxLine))
	if _, err := f.ReadAt(buf, size-int64(len(buf))); err != nil && err != io.EOF {
		return 0, err
	}
	torn := len(buf) - 1 - bytes.LastIndexByte(buf, '\n')
	if torn == 0 || torn == len(buf) && size > int64(len(buf)) {
		return size, nil // whole, or none of our files
	}
	return size - int64(torn), f.Truncate(size - int64(torn))
}

// scratch holds buffers in which entries are put together.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 32<<10); return &b }}

// Write takes what a stream put out. It never fails: what cannot be written is lost, and counted.
func (w *Writer) Write(s Stream, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return
	}
	now := time.Now()
	buf := scratch.Get().(*[]byte)
	b := &batch{w: w, b: (*buf)[:0]}
	rest := &w.pending[s-1]
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		whole := i >= 0
		piece := p
		if whole {
			piece = p[:i]
		}
		if room := MaxText - len(*rest); len(piece) > room {
			whole, piece = false, piece[:room]
		}
		p = p[len(piece):]
		if len(*rest) == 0 && whole { // nothing to be kept for later
			b.add(now, s, piece, false)
			p = p[1:]
			continue
		}
		*rest = append(*rest, piece...)
		if whole {
			b.add(now, s, *rest, false)
			*rest, p = (*rest)[:0], p[1:]
		} else if len(*rest) >= MaxText && !(len(p) > 0 && p[0] == '\n') {
			keep := torn(*rest)
			at := len(*rest) - keep
			b.add(now, s, (*rest)[:at], true)
			*rest = append((*rest)[:0], (*rest)[at:]...)
		}
	}
	b.flush()
	if cap(b.b) <= 64<<10 {
		*buf = b.b
		scratch.Put(buf)
	}
	if len(*rest) == 0 {
		*rest = nil // many containers may run
	}
}

// torn returns how many bytes at the end are the beginning of a character.
func torn(b []byte) int {
	for n := 1; n < utf8.UTFMax && n < len(b); n++ {
		if utf8.RuneStart(b[len(b)-n]) {
			if utf8.FullRune(b[len(b)-n:]) {
				return 0
			}
			return n
		}
	}
	return 0
}

// batch collects entries so that many lines take one call.
type batch struct {
	w *Writer
	b []byte
	n uint64 // entries in b
}

func (b *batch) add(t time.Time, s Stream, text []byte, partial bool) {
	before := len(b.b)
	b.b = b.w.cfg.Format.Append(b.b, t, s, text, partial)
	if total := b.w.size + int64(len(b.b)); total > b.w.cfg.MaxSize && b.w.size+int64(before) > 0 {
		entry := bytes.Clone(b.b[before:])
		b.b = b.b[:before]
		b.flush()
		b.w.rotate()
		b.b = append(b.b, entry...)
	}
	if b.n++; len(b.b) >= 32<<10 {
		b.flush()
	}
}

// flush writes what was collected, all of it or nothing.
func (b *batch) flush() {
	if len(b.b) == 0 {
		return
	}
	w := b.w
	n, err := w.f.Write(b.b)
	if err != nil && n > 0 {
		err = errors.Join(err, w.f.Truncate(w.size))
	}
	if err == nil {
		w.size += int64(n)
	} else {
		w.lost += b.n
		w.fail(err)
	}
	b.b, b.n = b.b[:0], 0
}

func (w *Writer) fail(err error) {
	if now := time.Now(); w.told != nil && now.Sub(w.toldAt) >= time.Second {
		w.toldAt = now
		w.told(err)
	}
}

// rotate makes an empty file the current one. If that cannot be, the current one grows beyond its size rather than that
// anything is lost.
func (w *Writer) rotate() {
	next := w.cfg.Path + newSuffix
	f, err := openFile(next, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND)
	if err != nil {
		w.fail(err)
		return
	}
	if err = lock(f); err == nil {
		if w.cfg.MaxFiles > 1 && isCurrent(w.f, w.cfg.Path) { // unless it has its new name already, or someone else gave it one
			err = os.Rename(w.cfg.Path, w.cfg.Path+"."+strconv.FormatUint(w.last+1, 10))
		}
		if err == nil {
			w.last++
			err = os.Rename(next, w.cfg.Path)
		}
	}
	if err != nil {
		f.Close()
		w.fail(err)
		return
	}
	w.f.Close()
	w.f, w.size = f, 0
	w.prune()
}

// prune removes the oldest files.
func (w *Writer) prune() {
	gens, err := generations(w.cfg.Path)
	if err != nil {
		w.fail(err)
		return
	}
	for len(gens) > w.cfg.MaxFiles-1 {
		if err := os.Remove(gens[0].name); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.fail(err)
		}
		gens = gens[1:]
	}
}

// Lost returns how many entries could not be written.
func (w *Writer) Lost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Close writes what is left of lines without an end and closes the file. What comes after it is thrown away.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return nil
	}
	b := &batch{w: w}
	for i := range w.pending {
		if text := w.pending[i]; len(text) > 0 {
			b.add(time.Now(), Stream(i+1), text, true)
		}
		w.pending[i] = nil
	}
	b.flush()
	err := w.f.Close()
	w.f = nil
	return err
}
