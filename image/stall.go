package image

import (
	"context"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// errStalled is why a request ends over which nothing comes.
var errStalled error = stalledError{}

type stalledError struct{}

func (stalledError) Error() string        { return "the registry sends nothing any more" }
func (stalledError) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// stallTransport gives up requests that stand still: until the answer begins, and while it is read. What is sent counts as progress.
type stallTransport struct {
	base         http.RoundTripper
	header, body time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	sent := req.WithContext(ctx)
	var answered atomic.Bool // the timer may be set again a moment after that
	timer := time.AfterFunc(t.header, func() {
		if !answered.Load() {
			cancel(errStalled)
		}
	})
	taken := func() {
		if !answered.Load() {
			timer.Reset(t.header)
		}
	}
	progress := func(body io.ReadCloser) io.ReadCloser { return sentBody{body, taken} }
	if req.Body != nil && req.Body != http.NoBody {
		sent.Body = progress(req.Body)
		if get := req.GetBody; get != nil {
			sent.GetBody = func() (io.ReadCloser, error) {
				body, err := get()
				if err != nil {
					return nil, err
				}
				return progress(body), nil
			}
		}
	}
	resp, err := t.base.RoundTrip(sent)
	answered.Store(true)
	timer.Stop()
	if err != nil {
		err = stalledOr(ctx, err)
		cancel(nil)
		return nil, err
	}
	if resp.Body == nil { // other transports than package http's may leave it out
		cancel(nil)
		return resp, nil
	}
	resp.Body = &stallBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, after: t.body}
	return resp, nil
}

// stalledOr is why a request failed.
func stalledOr(ctx context.Context, err error) error {
	if context.Cause(ctx) == errStalled {
		return errStalled
	}
	return err
}

// sentBody tells when more of a request is taken.
type sentBody struct {
	io.ReadCloser
	taken func()
}

func (b sentBody) Read(p []byte) (int, error) {
	b.taken()
	return b.ReadCloser.Read(p)
}

// stallBody is an answer every read of which has its time; between reads there is none, since the reader may be slow.
type stallBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	after  time.Duration
}

func (b *stallBody) Read(p []byte) (int, error) {
	timer := time.AfterFunc(b.after, func() { b.cancel(errStalled) })
	defer timer.Stop()
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = stalledOr(b.ctx, err)
	}
	return n, err
}

func (b *stallBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
