package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// A registry that serves this client no more says for how long, and why; it is not asked again before.
func TestRateLimit(t *testing.T) {
	testutil.NoLeaks(t)
	const words = "You have reached your pull rate limit.\x1b[2J"
	for name, c := range map[string]struct {
		after, body string
		want        time.Duration
		message     string
		text        string
	}{
		"seconds and words": {"120", `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit.\u001b[2J"}]}`, 2 * time.Minute, words, `You have reached your pull rate limit.\x1b[2J; wait 2m0s, log in, or use a mirror`},
		"seconds":           {"7", "", 7 * time.Second, "", "rate limit of the registry; wait 7s, log in, or use a mirror"},
		"for ever":          {"99999999999999999999999", "go away", maxRetryAfter, "", "; wait 720h0m0s, log in"},
	} {
		t.Run(name, func(t *testing.T) {
			h, big := newShelf(t)
			var asked atomic.Int32
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, sha256Hex(big)) {
					return false
				}
				asked.Add(1)
				w.Header().Set("Retry-After", c.after)
				w.WriteHeader(http.StatusTooManyRequests)
				fmt.Fprint(w, c.body)
				return true
			}
			at := h.serve(t)
			host, _, _ := strings.Cut(at, "/")
			_, err := openStore(t, Options{}).Pull(context.Background(), at, PullOptions{RegistryOptions: anonymous})
			var limit *RateLimitError
			if !errors.Is(err, ErrRateLimit) || !errors.As(err, &limit) || *limit != (RateLimitError{host, c.want, c.message}) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%+v, %v", limit, err)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for text, want := range map[string]time.Duration{"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:03:05 GMT": 0, "Fri, 02 Jan 2099 03:03:05 GMT": maxRetryAfter,
		"0": 0, "5": 5 * time.Second, "-5": 0, "": 0, "soon": 0} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	// Who wants a wait that is not long is asked again.
	for after, want := range map[string]bool{"": true, "5": true, "6": false} {
		w := httptest.NewRecorder()
		w.Header().Set("Retry-After", after)
		w.WriteHeader(http.StatusTooManyRequests)
		if got, err := worthRepeating(w.Result(), nil); got != want || err != nil {
			t.Errorf("%q: %v, %v", after, got, err)
		}
	}
}
