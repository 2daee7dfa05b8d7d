package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"mime"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

const (
	maxBody  = 8 << 20 // bytes of a request
	maxBatch = 64
)

//go:embed web
var webFiles embed.FS

// server answers requests.
type server struct {
	judge   *judge
	queue   *queue
	metrics *metrics
	local   bool // only this machine can reach it: requests for other hosts are not for it
}

// serve answers requests until ctx ends, and then lets those that run come to their end.
func serve(ctx context.Context, cfg config, ready func(url string)) error {
	l, err := net.Listen("tcp", cfg.listen)
	if err != nil {
		return err
	}
	defer l.Close()
	j, err := newJudge(ctx, cfg)
	if err != nil {
		return err
	}
	for _, n := range j.notes {
		log.Print("not held: ", n)
	}
	s := &server{j, newQueue(cfg.parallel, cfg.queue), newMetrics(), l.Addr().(*net.TCPAddr).IP.IsLoopback()}
	// What still runs when the grace is over ends with this context.
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	h := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, BaseContext: func(net.Listener) context.Context { return alive }}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	ready("http://" + l.Addr().String())
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = s.stop(h, cfg.grace, end)
	}
	return errors.Join(err, j.pool.Close())
}

// stop takes no more requests, and waits for those that there are; after grace they are ended.
func (s *server) stop(h *http.Server, grace time.Duration, end func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	err := h.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		end()
		last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		err = h.Shutdown(last)
	}
	return err
}

// handler routes requests. Pages of other sites cannot use a browser to run programs here: see http.CrossOriginProtection; nor
// can they reach a local service under a name of their own.
func (s *server) handler() http.Handler {
	files, err := fs.Sub(webFiles, "web")
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", s.run)
	mux.HandleFunc("POST /batch", s.batch)
	mux.HandleFunc("GET /version", s.version)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.metrics.write(w, s.queue, s.judge)
	})
	mux.Handle("GET /", http.FileServerFS(files))
	own := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if s.local && !localName(r.Host) {
			http.Error(w, "not a name of this machine", http.StatusMisdirectedRequest)
			return
		}
		own.ServeHTTP(w, r)
	})
}

// localName says whether a Host header names this machine by itself.
func localName(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *server) run(w http.ResponseWriter, r *http.Request) {
	var req Request
	if !decode(w, r, &req) {
		return
	}
	if list, ok := s.runAll(w, r, []Request{req}); ok {
		answer(w, http.StatusOK, list[0])
	}
}

func (s *server) batch(w http.ResponseWriter, r *http.Request) {
	var reqs []Request
	if !decode(w, r, &reqs) {
		return
	}
	if len(reqs) == 0 || len(reqs) > maxBatch {
		refuse(w, http.StatusBadRequest, fmt.Errorf("%d programs in a batch; 1 to %d", len(reqs), maxBatch))
		return
	}
	if list, ok := s.runAll(w, r, reqs); ok {
		answer(w, http.StatusOK, list)
	}
}

// runAll runs programs side by side, as far as there are turns. ok is false where the answer has been given.
func (s *server) runAll(w http.ResponseWriter, r *http.Request, reqs []Request) (out []*Response, ok bool) {
	for i := range reqs {
		if err := reqs[i].check(s.judge.languages); err != nil {
			if len(reqs) > 1 {
				err = fmt.Errorf("program %d: %w", i, err)
			}
			refuse(w, http.StatusBadRequest, err)
			return nil, false
		}
	}
	if err := s.queue.reserve(len(reqs)); err != nil {
		s.metrics.refuse(len(reqs))
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, err)
		return nil, false
	}
	out = make([]*Response, len(reqs))
	if len(reqs) == 1 {
		out[0] = s.runOne(r.Context(), &reqs[0])
		return out, true
	}
	var all sync.WaitGroup
	for i := range reqs {
		all.Go(func() { out[i] = s.runOne(r.Context(), &reqs[i]) })
	}
	all.Wait()
	return out, true
}

// runOne runs a program for which a place is reserved, and counts it.
func (s *server) runOne(ctx context.Context, req *Request) (resp *Response) {
	began := time.Now()
	if err := s.queue.run(ctx, func() { resp = s.judge.run(ctx, req) }); err != nil {
		resp = failure(err)
	}
	if resp.Verdict == internal && ctx.Err() == nil {
		log.Print("internal error: ", resp.Error)
	}
	s.metrics.ran(resp.Verdict, time.Since(began))
	return resp
}

// version tells what serves, and what it can run.
func (s *server) version(w http.ResponseWriter, _ *http.Request) {
	version := "unknown"
	if b, ok := debug.ReadBuildInfo(); ok {
		version = b.Main.Version
	}
	answer(w, http.StatusOK, map[string]any{
		"version": version, "go": runtime.Version(), "arch": runtime.GOARCH, "languages": names(s.judge.languages),
		"default_limits": defaultLimits, "most_limits": mostLimits, "not_held": s.judge.notes,
	})
}

// decode reads a request's JSON; false where the answer has been given.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, errors.New("the body is to be application/json"))
		return false
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil && d.More() {
		err = errors.New("more than one value in the body")
	}
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return true
	case errors.As(err, &large):
		refuse(w, http.StatusRequestEntityTooLarge, err)
	default:
		refuse(w, http.StatusBadRequest, err)
	}
	return false
}

func refuse(w http.ResponseWriter, status int, err error) {
	answer(w, status, map[string]string{"error": err.Error()})
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
