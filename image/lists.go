package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxPages bounds the answers that a list of referrers may come in.
const maxPages = 128

// listsKey marks the context of requests whose answers are lists of descriptors.
type listsKey struct{}

// withLists has a listTransport look at what is answered.
func withLists(ctx context.Context) context.Context { return context.WithValue(ctx, listsKey{}, true) }

// listTransport looks at lists before they are decoded: an element of three bytes becomes a descriptor of two hundred. It goes by the context and
// not by the path, which a registry may redirect.
type listTransport struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t listTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err != nil || req.Method != http.MethodGet || resp.StatusCode != http.StatusOK || resp.Body == nil || req.Context().Value(listsKey{}) == nil {
		return resp, err
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != ocispec.MediaTypeImageIndex {
		return resp, nil // its reader takes nothing else for a list, and asks for the tag instead
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = checkList(data)
	}
	if err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	return resp, nil
}

// checkList refuses what would take much more memory than its text. What is no list at all is for its reader to refuse.
func checkList(data []byte) error {
	if len(data) > maxManifest {
		return because(ErrDocument, "a list of more than %d bytes", maxManifest)
	}
	keys, err := topKeys(data)
	if err != nil {
		return err
	}
	raw, ok := keys["manifests"]
	if !ok {
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return because(ErrDocument, "%v", err)
	}
	if len(list) > maxReferrers {
		return because(ErrDocument, "more than %d manifests refer to the image", maxReferrers)
	}
	return nil
}
