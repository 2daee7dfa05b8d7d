package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"
)

// Options say what of a log is read.
type Options struct {
	Follow       bool
	Tail         int // 0: all
	Since, Until time.Time
	Streams      []Stream // none: all
}

// wants reports whether an entry is asked for.
func (o *Options) wants(e *Entry) bool {
	return (len(o.Streams) == 0 || slices.Contains(o.Streams, e.Stream)) && (o.Since.IsZero() || !e.Time.Before(o.Since)) &&
		(o.Until.IsZero() || !e.Time.After(o.Until))
}

// Read yields the entries of a log, the oldest first. What is no entry is yielded as an error, and the next ones follow. With
// Follow it goes on as the log grows, over rotations, until ended is closed and everything was read, or Until has passed, or ctx
// ends, whose error is the last one. Who reads so slowly that files are removed meanwhile misses what was in them.
func Read(ctx context.Context, path string, o Options, ended <-chan struct{}) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &reader{ctx: ctx, path: path, o: o, ended: ended, yield: yield}
		defer r.close()
		if err := r.read(); err != nil && !errors.Is(err, errDone) {
			yield(Entry{}, err)
		}
	}
}

// errDone: nothing more is wanted.
var errDone = errors.New("done")

type reader struct {
	ctx   context.Context
	path  string
	o     Options
	ended <-chan struct{}
	yield func(Entry, error) bool

	f     *os.File
	lines lines
	wait  waiter
}

func (r *reader) close() {
	r.wait.close()
	if r.f != nil {
		r.f.Close()
	}
}

// use goes on with another file.
func (r *reader) use(f *os.File, offset int64) {
	if r.f != nil {
		r.f.Close()
	}
	r.f, r.lines = f, lines{f: f, off: offset}
	r.wait.leave()
}

func (r *reader) read() error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if err := r.begin(); err != nil {
		return err
	}
	for {
		over := r.over()
		if err := r.rest(); err != nil {
			return err
		}
		if isCurrent(r.f, r.path) {
			if over {
				return nil
			}
			if err := r.await(); err != nil {
				return err
			}
			continue
		}
		if err := r.rest(); err != nil { // what was written before the file got another name
			return err
		}
		if r.lines.torn() && !r.yield(Entry{}, corrupt(r.lines.buf)) {
			return errDone
		}
		f, err := r.next()
		if err != nil || f == nil {
			return err
		}
		r.use(f, 0)
	}
}

// over reports whether nothing will be added any more.
func (r *reader) over() bool {
	if !r.o.Follow || !r.o.Until.IsZero() && time.Now().After(r.o.Until) {
		return true
	}
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// await waits until there may be more.
func (r *reader) await() error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	if !r.o.Until.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, r.o.Until)
		defer cancel()
	}
	if r.ended != nil {
		gone := make(chan struct{})
		defer func() { <-gone }()
		defer cancel()
		go func() {
			defer close(gone)
			select {
			case <-r.ended:
				cancel()
			case <-ctx.Done():
			}
		}()
	}
	r.wait.await(ctx, r.f)
	return r.ctx.Err()
}

// rest yields what there is in the file.
func (r *reader) rest() error {
	for {
		line, err := r.lines.next()
		if err == io.EOF {
			return nil
		}
		if cerr := r.ctx.Err(); cerr != nil {
			return cerr
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		var e Entry
		if err == nil {
			e, err = Parse(line)
		}
		if err == nil && !r.o.wants(&e) {
			continue
		}
		if err != nil {
			e = Entry{}
		}
		if !r.yield(e, err) {
			return errDone
		}
	}
}

// settleTime is for how long files may be changing places: the writer does it in two steps, between which a busy machine may let it wait.
const settleTime = 5 * time.Second

// begin opens the file in which what is asked for begins.
func (r *reader) begin() error {
	if r.o.Tail > 0 {
		return r.beginAtTail()
	}
	for end := time.Now().Add(settleTime); time.Now().Before(end); {
		gens, err := generations(r.path)
		if err != nil {
			return err
		}
		name := r.path
		if len(gens) > 0 {
			name = gens[0].name
		}
		f, err := openFile(name, os.O_RDONLY)
		if err == nil && (name != r.path || r.follows(f, gens)) {
			r.use(f, 0)
			return nil
		}
		if err == nil { // rotated in between
			f.Close()
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) || name == r.path && !r.settling() {
			return err
		}
	}
	return &fs.PathError{Op: "open", Path: r.path, Err: fs.ErrNotExist}
}

// settling waits a moment while the files change places; false means that they do not.
func (r *reader) settling() bool {
	if _, err := os.Lstat(r.path + newSuffix); err != nil {
		if _, err := os.Lstat(r.path); err != nil {
			return false
		}
		return true
	}
	t := time.NewTimer(time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// beginAtTail counts from the end, from file to file.
func (r *reader) beginAtTail() error {
	need := r.o.Tail
	match := func(line []byte) bool {
		e, err := Parse(line)
		return err == nil && r.o.wants(&e)
	}
	f, err := openFile(r.path, os.O_RDONLY)
	for end := time.Now().Add(settleTime); time.Now().Before(end); {
		if !errors.Is(err, fs.ErrNotExist) || !r.settling() {
			break
		}
		f, err = openFile(r.path, os.O_RDONLY)
	}
	if err != nil {
		return err
	}
	before, err := r.before(f)
	for err == nil {
		var st fs.FileInfo
		if st, err = f.Stat(); err != nil {
			break
		}
		off, n, berr := back(f, st.Size(), need, match)
		if need -= n; berr != nil || need == 0 || len(before) == 0 || r.ctx.Err() != nil {
			r.use(f, off)
			return errors.Join(berr, r.ctx.Err())
		}
		older, oerr := openFile(before[len(before)-1].name, os.O_RDONLY)
		before = before[:len(before)-1]
		if errors.Is(oerr, fs.ErrNotExist) { // removed in between, and all before it
			r.use(f, 0)
			return nil
		}
		if err = oerr; err == nil {
			f.Close()
			f = older
		}
	}
	f.Close()
	return err
}

// before lists the files that are older than f.
func (r *reader) before(f *os.File) ([]generation, error) {
	gens, err := generations(r.path)
	if err != nil {
		return nil, err
	}
	if i := indexOf(gens, f); i >= 0 {
		gens = gens[:i]
	}
	return gens, nil
}

func indexOf(gens []generation, f *os.File) int {
	return slices.IndexFunc(gens, func(g generation) bool { return isCurrent(f, g.name) })
}

// next opens the file after the one that was read, which has been rotated; nil if there is none.
func (r *reader) next() (*os.File, error) {
	for end := time.Now().Add(settleTime); time.Now().Before(end); {
		gens, err := generations(r.path)
		if err != nil {
			return nil, err
		}
		name, i := r.path, indexOf(gens, r.f)
		if i+1 < len(gens) { // -1: it has been removed already
			name = gens[i+1].name
		}
		f, err := openFile(name, os.O_RDONLY)
		if err == nil && (name != r.path || r.follows(f, gens)) {
			return f, nil
		}
		if err == nil {
			f.Close()
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if name == r.path && !r.settling() {
			return nil, r.ctx.Err()
		}
	}
	if _, err := os.Lstat(r.path); err != nil {
		return nil, nil // its writer was killed while it rotated
	}
	return nil, fmt.Errorf("%s is rotated faster than it can be read", r.path)
}

// follows reports whether no file came to lie between those that were listed and one that was opened as the current one
// afterwards.
func (r *reader) follows(f *os.File, listed []generation) bool {
	now, err := generations(r.path)
	if err != nil {
		return false
	}
	if i := indexOf(now, f); i >= 0 {
		now = now[:i]
	}
	last := func(l []generation) uint64 {
		if len(l) == 0 {
			return 0
		}
		return l[len(l)-1].n
	}
	return last(now) <= last(listed)
}
