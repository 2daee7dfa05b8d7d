package image

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
)

// A Read or Write of the caller's may block for ever, and nothing ends it but its other end. So it is made by a goroutine, which is left behind in it when the context ends. It has
// nothing but the caller's reader or writer and a buffer of its own.

// awaiting has calls made by a goroutine, one at a time.
type awaiting struct {
	ctx  context.Context
	call func(p []byte) (int, error)
	ask  chan []byte
	told chan told
	err  error
}

type told struct {
	n   int
	err error
}

// await begins. leave is called at the end, and waits for nothing.
func await(ctx context.Context, call func(p []byte) (int, error)) (a *awaiting, leave func()) {
	a = &awaiting{ctx: ctx, call: call, ask: make(chan []byte), told: make(chan told, 1)}
	go func() {
		for p := range a.ask {
			n, err := a.call(p)
			a.told <- told{n, err}
		}
	}()
	return a, func() { close(a.ask) }
}

// do has the call made with p, which is the goroutine's when the error is that of the context.
func (a *awaiting) do(p []byte) (int, error) {
	if a.err == nil && a.ctx.Err() != nil {
		a.err = context.Cause(a.ctx)
	}
	if a.err != nil {
		return 0, a.err
	}
	a.ask <- p
	select {
	case t := <-a.told:
		return t.n, t.err
	case <-a.ctx.Done():
		a.err = context.Cause(a.ctx)
		return 0, a.err
	}
}

// awaited is r for as long as ctx lasts. leave is called when nothing more is read.
func awaited(ctx context.Context, r io.Reader) (_ io.Reader, leave func()) {
	if ctx.Done() == nil || prompt(r) {
		return &ctxReader{ctx, r}, func() {}
	}
	a, leave := await(ctx, r.Read)
	return &awaitedReader{a, make([]byte, blobBuffer)}, leave
}

type awaitedReader struct {
	*awaiting
	buf []byte
}

// Read implements io.Reader.
func (r *awaitedReader) Read(p []byte) (int, error) {
	n, err := r.do(r.buf[:min(len(p), len(r.buf))])
	return copy(p, r.buf[:n]), err
}

// awaitedWriter is w for as long as ctx lasts. leave is called when nothing more is written.
func awaitedWriter(ctx context.Context, w io.Writer) (_ io.Writer, leave func()) {
	if ctx.Done() == nil || prompt(w) {
		return w, func() {}
	}
	a, leave := await(ctx, w.Write)
	return &awaitingWriter{awaiting: a}, leave
}

type awaitingWriter struct {
	*awaiting
	buf []byte
}

// Write implements io.Writer.
func (w *awaitingWriter) Write(p []byte) (int, error) {
	if w.err != nil { // the buffer is with the goroutine
		return 0, w.err
	}
	w.buf = append(w.buf[:0], p...)
	return w.do(w.buf)
}

// prompt says that a reader or writer never waits for anybody.
func prompt(rw any) bool {
	switch f := rw.(type) {
	case *bytes.Buffer, *bytes.Reader, *strings.Reader, *strings.Builder:
		return true
	case *os.File:
		fi, err := f.Stat()
		return err == nil && fi.Mode().IsRegular()
	}
	return rw == io.Discard
}
