package image

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// testProxy is an HTTP proxy that knows one place, whatever is asked for.
type testProxy struct {
	to       string // host:port
	user     string // that it wants, as user:password
	mu       sync.Mutex
	asked    []string // "METHOD host", in turn
	forwards http.Transport
}

func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	in := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	if user, password, _ := in.BasicAuth(); p.user != "" && user+":"+password != p.user {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		p.forward(w, r)
		return
	}
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer up.Close()
	down, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer down.Close()
	fmt.Fprint(down, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		io.Copy(up, down)
		up.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(down, up)
}

func (p *testProxy) forward(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Host = "", p.to
	resp, err := p.forwards.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// serve starts the proxy and returns its URL.
func (p *testProxy) serve(t *testing.T) *url.URL {
	t.Helper()
	srv := httptest.NewUnstartedServer(p)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	t.Cleanup(p.forwards.CloseIdleConnections)
	return must[*url.URL](t)(url.Parse(srv.URL))
}

// took returns what was asked for since the last call.
func (p *testProxy) took() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.asked
	p.asked = nil
	return out
}

// A registry that only a proxy can reach, with TLS and without, and a proxy that wants to know who asks.
func TestProxy(t *testing.T) {
	testutil.NoLeaks(t)
	h, _ := newShelf(t)
	secure := httptest.NewUnstartedServer(h)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := h.serve(t)
	roots := &tls.Config{RootCAs: secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	for name, c := range map[string]struct {
		proxy *testProxy
		user  *url.Userinfo
		plain bool
		asked string
		fault string
	}{
		"tls":          {&testProxy{to: secure.Listener.Addr().String()}, nil, false, "CONNECT example.com:443", ""},
		"plain":        {&testProxy{to: strings.TrimSuffix(plain, "/team/app:1")}, nil, true, "GET example.com", ""},
		"with a user":  {&testProxy{to: secure.Listener.Addr().String(), user: "me:secret"}, url.UserPassword("me", "secret"), false, "CONNECT example.com:443", ""},
		"another user": {&testProxy{to: secure.Listener.Addr().String(), user: "me:secret"}, url.UserPassword("me", "wrong"), false, "CONNECT example.com:443", "Proxy Authentication Required"},
		"none behind":  {&testProxy{to: "127.0.0.1:1"}, nil, false, "CONNECT example.com:443", "Bad Gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			at := c.proxy.serve(t)
			at.User = c.user
			o := RegistryOptions{Anonymous: true, Attempts: 1, TLS: roots, PlainHTTP: c.plain, Proxy: http.ProxyURL(at)}
			s := openStore(t, Options{})
			_, err := s.Pull(context.Background(), "example.com/team/app:1", PullOptions{RegistryOptions: o})
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "wrong") {
					t.Errorf("%v, want %q", err, c.fault)
				}
			} else if err != nil || len(names(t, s)) != 1 {
				t.Errorf("%v, %v", err, names(t, s))
			}
			asked := c.proxy.took()
			if len(asked) == 0 {
				t.Error("the proxy was not asked")
			}
			for _, a := range asked {
				if a != c.asked && a != strings.Replace(c.asked, "GET", "HEAD", 1) {
					t.Errorf("the proxy was asked: %s", a)
				}
			}
		})
	}
}

// rolePuller pulls an image in a process of its own, whose environment counts.
func rolePuller() {
	s, err := Open(os.Getenv("STORE"), Options{})
	if err == nil {
		_, err = s.Pull(context.Background(), os.Getenv("REF"), PullOptions{RegistryOptions: RegistryOptions{Anonymous: true, Attempts: 1, PlainHTTP: true}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The variables of the environment count, in either case; what NO_PROXY names is asked directly.
func TestProxyOfEnvironment(t *testing.T) {
	testutil.NoLeaks(t)
	h, _ := newShelf(t)
	ref := h.serve(t)
	_, port, _ := strings.Cut(strings.TrimSuffix(ref, "/team/app:1"), ":")
	// The kernel takes this address for a loopback one (ip(7)), and Go, which asks loopback addresses directly, does not.
	ref = "0.0.0.0:" + port + "/team/app:1"
	p := &testProxy{to: "127.0.0.1:" + port}
	at := p.serve(t).String()
	for name, c := range map[string]struct {
		env     []string
		proxied bool
	}{
		"HTTP_PROXY":  {[]string{"HTTP_PROXY=" + at}, true},
		"http_proxy":  {[]string{"http_proxy=" + at}, true},
		"HTTPS_PROXY": {[]string{"HTTPS_PROXY=" + at}, false}, // not for what is not TLS
		"NO_PROXY":    {[]string{"HTTP_PROXY=" + at, "NO_PROXY=example.com,0.0.0.0"}, false},
		"other":       {[]string{"HTTP_PROXY=" + at, "NO_PROXY=example.com"}, true},
	} {
		s := openStore(t, Options{})
		empty := []string{"HTTP_PROXY=", "http_proxy=", "HTTPS_PROXY=", "https_proxy=", "NO_PROXY=", "no_proxy=", "REQUEST_METHOD="}
		cmd := testutil.Role("puller", append(append(empty, "STORE="+s.Dir(), "REF="+ref), c.env...)...)
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if asked := p.took(); (len(asked) > 0) != c.proxied {
			t.Errorf("%s: the proxy was asked %v", name, asked)
		}
		if got := names(t, s); len(got) != 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}
