package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// Causes of errors of registries, for [errors.Is]. What a registry does not have is [ErrNotFound].
var (
	// ErrUnauthorized says that the registry wants other credentials, or does not let these do that. Docker Hub says so of
	// repositories that do not exist.
	ErrUnauthorized = errors.New("not authorized by the registry")
	// ErrRateLimit says that the registry serves this client no more for a while; a [*RateLimitError] says for how long.
	ErrRateLimit = errors.New("rate limit of the registry")
)

// RegistryOptions say how registries are reached. The zero value suits public ones, and those that docker login knows.
type RegistryOptions struct {
	// PlainHTTP speaks http without TLS. Without it, registries on a loopback address are asked for TLS first and then
	// spoken to without, as Docker does; all others have to speak TLS. It holds for those mirrors too that do not say.
	PlainHTTP bool
	// TLS has the certificates of authorities and clients, for registries with one of their own. Default: the machine's.
	TLS *tls.Config
	// TLSFor returns what takes the place of TLS for a registry or mirror, given as host[:port] ("docker.io" for Docker Hub), and for the server of its tokens; nil for TLS itself. So
	// a mirror gets no certificate that is meant for the registry.
	TLSFor func(host string) *tls.Config
	// Credentials returns user and password for a registry, given as host[:port], "docker.io" for Docker Hub; a user that is empty means a token of that
	// content, and both empty anonymous access. Default: Docker's config.json ($DOCKER_CONFIG or ~/.docker), with the credential helpers
	// that it names, which are programs of that user.
	Credentials func(ctx context.Context, registry string) (user, password string, err error)
	// Anonymous uses no credentials.
	Anonymous bool
	// Mirrors are hosts that are asked first, by registry: {"docker.io": {"mirror.local:5000"}}. One that begins with http:// is spoken to without TLS, one with
	// https:// only with it, whatever PlainHTTP says of the registry. What they serve is verified like all else; which content a tag means is their word.
	Mirrors map[string][]string
	// Attempts is how often a request or a download is tried before it fails; of a download they are counted anew when a further MiB has come. Default 5. A request
	// is not repeated where the registry wants to be left alone for more than 5 seconds: see [RateLimitError].
	Attempts int
	// Transport performs requests instead of one that goes by TLS and Proxy; with it, those are not used.
	Transport http.RoundTripper
	// Proxy chooses the proxy for a request; a nil URL means none. [http.ProxyURL] makes one that chooses always the same: with the scheme http,
	// https, socks5 or socks5h, and user and password where it wants those. Default: what $HTTPS_PROXY, $HTTP_PROXY and $NO_PROXY say, as
	// [http.ProxyFromEnvironment] reads them once: never one for loopback addresses.
	Proxy func(*http.Request) (*url.URL, error)

	stall time.Duration // instead of stallTimeout
}

// Times of conversation with a registry.
const (
	stallTimeout  = 60 * time.Second // without a byte
	retryWait     = 250 * time.Millisecond
	retryWaitMost = 5 * time.Second
)

func (o RegistryOptions) attempts() int {
	if o.Attempts > 0 {
		return o.Attempts
	}
	return 5
}

// transport makes connections to a host and the servers that it names, for one operation; idle ones are closed at its end.
func (o RegistryOptions) transport(host string) (http.RoundTripper, func()) {
	if o.Transport != nil {
		return o.Transport, func() {}
	}
	t := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		// HTTP/2 would put all layers on one connection, and one window.
		ForceAttemptHTTP2: false, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSHandshakeTimeout: 20 * time.Second, MaxIdleConnsPerHost: 16, DisableCompression: true,
	}
	config := o.TLS
	if o.TLSFor != nil {
		if own := o.TLSFor(host); own != nil {
			config = own
		}
	}
	if config != nil {
		t.TLSClientConfig = config.Clone()
	}
	if o.Proxy != nil {
		t.Proxy = o.Proxy
	}
	return t, t.CloseIdleConnections
}

// hubHost serves what is named docker.io.
const hubHost = "registry-1.docker.io"

// session is a conversation with the places that have a repository: mirrors first, the registry last.
type session struct {
	repos    []*remote.Repository
	attempts int
	close    func()
}

func (o RegistryOptions) open(ctx context.Context, ref Reference, mirrors bool) (*session, error) {
	credential, err := o.credential()
	if err != nil {
		return nil, err
	}
	var done []func()
	s := &session{attempts: o.attempts(), close: func() {
		for _, f := range done {
			f()
		}
	}}
	var hosts []string
	if mirrors {
		hosts = append(hosts, o.Mirrors[ref.Registry]...)
	}
	for _, at := range append(hosts, ref.Registry) {
		host, plain, said := spoken(at)
		if !validRegistry(host) {
			s.close()
			return nil, because(ErrReference, "mirror %q is no host", clip(at))
		}
		base, end := o.transport(host)
		done = append(done, end)
		r := o.repository(base, credential, host, ref.Repository)
		switch {
		case said:
			r.PlainHTTP = plain
		case !o.PlainHTTP && isLoopback(host):
			r.PlainHTTP = speaksPlain(ctx, o.patient(base), host)
		}
		s.repos = append(s.repos, r)
	}
	return s, nil
}

// spoken divides what names a registry or mirror; said tells whether it says how to speak to it.
func spoken(at string) (host string, plain, said bool) {
	if host, plain = strings.CutPrefix(at, "http://"); plain {
		return host, true, true
	}
	host, said = strings.CutPrefix(at, "https://")
	return host, false, said
}

// patient gives up what says nothing for too long.
func (o RegistryOptions) patient(base http.RoundTripper) http.RoundTripper {
	stall := o.stall
	if stall == 0 {
		stall = stallTimeout
	}
	return listTransport{stallTransport{base: base, header: 2 * stall, body: stall}}
}

func (o RegistryOptions) repository(base http.RoundTripper, credential auth.CredentialFunc, host, name string) *remote.Repository {
	again := retry.NewTransport(o.patient(base))
	again.Policy = o.policy
	client := &auth.Client{Client: &http.Client{Transport: limitTransport{again}}, Cache: auth.NewCache(), Credential: credential}
	client.SetUserAgent("caisson")
	return &remote.Repository{Client: client, Reference: registry.Reference{Registry: host, Repository: name}, PlainHTTP: o.PlainHTTP, MaxMetadataBytes: maxManifest, ReferrerListMaxPages: maxPages,
		ManifestMediaTypes: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerIndex}}
}

func (o RegistryOptions) policy() retry.Policy {
	return &retry.GenericPolicy{Retryable: worthRepeating, Backoff: retry.DefaultBackoff, MinWait: retryWait, MaxWait: retryWaitMost, MaxRetry: o.attempts() - 1}
}

func (o RegistryOptions) credential() (auth.CredentialFunc, error) {
	switch {
	case o.Anonymous:
		return auth.StaticCredential("", auth.EmptyCredential), nil
	case o.Credentials != nil:
		return func(ctx context.Context, host string) (auth.Credential, error) {
			if host == hubHost {
				host = DefaultRegistry
			}
			user, password, err := o.Credentials(ctx, host)
			if user == "" {
				return auth.Credential{AccessToken: password}, err
			}
			return auth.Credential{Username: user, Password: password}, err
		}, nil
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Docker's config.json: %w", err)
	}
	return awaitedCredential(credentials.Credential(store)), nil
}

// awaitedCredential asks as long as the context lasts. A helper is killed at its end; what it has started may hold its output open for ever, and is left to itself.
func awaitedCredential(ask auth.CredentialFunc) auth.CredentialFunc {
	type answer struct {
		credential auth.Credential
		err        error
	}
	return func(ctx context.Context, host string) (auth.Credential, error) {
		told := make(chan answer, 1)
		go func() {
			c, err := ask(ctx, host)
			told <- answer{c, err}
		}()
		select {
		case a := <-told:
			return a.credential, a.err
		case <-ctx.Done():
			return auth.Credential{}, context.Cause(ctx)
		}
	}
}

// isLoopback says that a registry is on this machine.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// speaksPlain asks a registry on this machine for TLS and reports whether it answers without.
func speaksPlain(ctx context.Context, t http.RoundTripper, host string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/v2/", nil)
	if err != nil {
		return false
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		var plain tls.RecordHeaderError
		return errors.As(err, &plain) || strings.Contains(err.Error(), "server gave HTTP response")
	}
	resp.Body.Close()
	return false
}

// try performs fn with one place after the other, until one succeeds, and returns the error of the last.
func (s *session) try(ctx context.Context, fn func(*remote.Repository) error) error {
	var err error
	for _, r := range s.repos {
		if err = registryError(fn(r)); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

const remedyLogin = "log in with docker login, or set RegistryOptions.Credentials"

// registryError translates what registries answer.
func registryError(err error) error {
	err = foreign(err)
	var resp *errcode.ErrorResponse
	var limit *RateLimitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &limit):
		return &Error{Op: "ask registry", Object: limit.Registry, Err: err, Remedy: limit.remedy()}
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return &Error{Op: "ask registry", Err: fmt.Errorf("%w: %w", ErrUnauthorized, err), Remedy: remedyLogin}
	case errors.Is(err, errdef.ErrNotFound):
		return because(ErrNotFound, "%v", err)
	case strings.HasSuffix(err.Error(), "mismatch Content-Length"): // of package remote, which has no error of its own for it
		return because(ErrSize, "%v", err)
	case !errors.As(err, &resp):
		return err
	}
	at := ""
	if resp.URL != nil {
		at = resp.URL.Host
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &Error{Op: "ask registry", Object: at, Err: fmt.Errorf("%w: %w", ErrUnauthorized, err), Remedy: remedyLogin}
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

// document implements origin.
func (s *session) document(ctx context.Context, d ocispec.Descriptor, limit int64) (data []byte, err error) {
	err = s.try(ctx, func(r *remote.Repository) error {
		fetch := r.Blobs().Fetch
		if isManifest(d.MediaType) || isIndex(d.MediaType) {
			fetch = r.Manifests().Fetch
		}
		body, err := fetch(ctx, d)
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = readAllBounded(body, limit)
		return err
	})
	return data, err
}

// blob implements origin.
func (s *session) blob(ctx context.Context, store *Store, d ocispec.Descriptor, tell func(int64)) error {
	return s.try(ctx, func(r *remote.Repository) error {
		return store.download(ctx, d, s.attempts, tell, func(ctx context.Context, from int64) (io.ReadCloser, bool, error) {
			body, err := r.Blobs().Fetch(ctx, d)
			if err != nil || from == 0 {
				return body, true, err
			}
			if seeker, ok := body.(io.Seeker); ok {
				_, err := seeker.Seek(from, io.SeekStart) // asks for the rest
				switch {
				case err == nil:
					return body, true, nil
				case errors.Is(err, ErrRateLimit), ctx.Err() != nil: // what came already is kept
					body.Close()
					return nil, false, err
				}
			}
			return body, false, nil
		})
	})
}
