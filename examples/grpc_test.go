//go:build linux

package examples_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// pb is a message of protocol buffers, written and read field by field: the little of it that these tests need.
type pb []byte

func (m pb) num(field int, v uint64) pb {
	return binary.AppendUvarint(binary.AppendUvarint(m, uint64(field)<<3), v)
}

func (m pb) str(field int, v string) pb {
	m = binary.AppendUvarint(m, uint64(field)<<3|2)
	return append(binary.AppendUvarint(m, uint64(len(v))), v...)
}

func (m pb) msg(field int, v pb) pb { return m.str(field, string(v)) }

func (m pb) list(field int, v ...string) pb {
	for _, s := range v {
		m = m.str(field, s)
	}
	return m
}

// get returns a field: its number, or its bytes.
func (m pb) get(field int) (n uint64, b pb) {
	for len(m) > 0 {
		key, k := binary.Uvarint(m)
		v, l := binary.Uvarint(m[max(k, 0):])
		if k <= 0 || l <= 0 {
			return 0, nil
		}
		m = m[k+l:]
		var data pb
		switch key & 7 {
		case 0:
		case 2:
			if v > uint64(len(m)) {
				return 0, nil
			}
			data, m = m[:v], m[v:]
		default:
			return 0, nil
		}
		if key>>3 == uint64(field) {
			return v, data
		}
	}
	return 0, nil
}

// grpcClient calls services on a Unix socket.
type grpcClient struct{ http.Client }

func newGRPC(t *testing.T, socket string) *grpcClient {
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &grpcClient{http.Client{Transport: tr}}
}

// call calls a method that takes and answers one message.
func (c *grpcClient) call(method string, m pb) (pb, error) {
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
	req, err := http.NewRequest(http.MethodPost, "http://localhost/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	for _, h := range []http.Header{resp.Header, resp.Trailer} { // an error without a message comes as one frame
		if s := h.Get("Grpc-Status"); s != "" && s != "0" {
			return nil, fmt.Errorf("%s: status %s: %s", method, s, h.Get("Grpc-Message"))
		}
	}
	if len(out) < 5 {
		return nil, fmt.Errorf("%s: %s, %d bytes", method, resp.Status, len(out))
	}
	return out[5:], nil
}
