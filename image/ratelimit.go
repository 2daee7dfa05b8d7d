package image

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"
)

// RateLimitError is a registry's answer that it serves this client no more for a while (HTTP status 429). It Is [ErrRateLimit].
type RateLimitError struct {
	// Registry is the host that answered, or that gives tokens for it, with the port if one was named.
	Registry string
	// RetryAfter is how long the registry wants to be left alone, at most 30 days; zero where it does not say.
	RetryAfter time.Duration
	// Message is what it says about it, as it came, up to 8 KiB: to be escaped before it is shown. Mostly empty.
	Message string
}

func (e *RateLimitError) Error() string {
	if e.Message == "" {
		return ErrRateLimit.Error()
	}
	return ErrRateLimit.Error() + ": " + shown(e.Message)
}

// Is makes every RateLimitError an ErrRateLimit.
func (e *RateLimitError) Is(target error) bool { return target == ErrRateLimit }

// remedy is what helps.
func (e *RateLimitError) remedy() string {
	if e.RetryAfter <= 0 {
		return "wait, log in, or use a mirror"
	}
	return "wait " + e.RetryAfter.String() + ", log in, or use a mirror"
}

const (
	maxRetryAfter = 30 * 24 * time.Hour // what is longer is no time to wait for
	maxLimitBody  = 8 << 10
)

// limitTransport makes a RateLimitError of what is still such an answer when requests have been repeated: the header with the time is nowhere later.
type limitTransport struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t limitTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests {
		return resp, err
	}
	e := &RateLimitError{Registry: req.URL.Host, RetryAfter: retryAfter(resp.Header, time.Now())}
	if resp.Body == nil {
		return nil, e
	}
	defer resp.Body.Close()
	late := time.AfterFunc(retryWaitMost, func() { resp.Body.Close() }) // the words are not worth more
	defer late.Stop()
	var said struct {
		Errors []struct{ Message string }
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxLimitBody)).Decode(&said) == nil && len(said.Errors) > 0 {
		e.Message = said.Errors[0].Message
	}
	return nil, e
}

// retryAfter reads the header Retry-After (RFC 9110, section 10.2.3): seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if n, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter).Round(time.Second)
}

// worthRepeating says that a request may have another answer after a wait of ours: not if the registry wants a longer one.
func worthRepeating(resp *http.Response, err error) (bool, error) {
	if err == nil && resp.StatusCode == http.StatusTooManyRequests && retryAfter(resp.Header, time.Now()) > retryWaitMost {
		return false, nil
	}
	return retry.DefaultPredicate(resp, err)
}
