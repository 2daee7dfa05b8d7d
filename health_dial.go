package caisson

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// askByDial is a check by a connection into the container.
func (c *Container) askByDial(ctx context.Context, check HealthCheck, out io.Writer) error {
	if check.TCP != "" {
		conn, err := c.Dial(ctx, "tcp", check.TCP)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	t, err := parseHTTP(check.HTTP)
	if err != nil {
		return err
	}
	conn, err := c.Dial(ctx, "tcp", t.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = t.get(conn, out)
	if cerr := ctx.Err(); err != nil && cerr != nil {
		return fmt.Errorf("%w: %w", cerr, err)
	}
	return err
}

// get asks and judges the answer, of which no more than is kept is read. It speaks for itself what it needs of HTTP (RFC 9112):
// package net/http would be linked into every program that uses this one.
func (t *httpTarget) get(conn net.Conn, out io.Writer) error {
	request := "GET " + t.path + " HTTP/1.1\r\nHost: " + t.host + "\r\nUser-Agent: caisson\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.TeeReader(io.LimitReader(conn, maxHealthOutput), out), maxHealthOutput)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	status, err := parseStatusLine(line)
	if err != nil {
		return err
	}
	if status < 200 || status > 399 {
		_, _ = io.Copy(io.Discard, r) // for people
		return fmt.Errorf("status %d", status)
	}
	return nil
}

// parseStatusLine reads "HTTP/1.1 200 OK".
func parseStatusLine(line []byte) (int, error) {
	bad := fmt.Errorf("the answer is not HTTP: %.60q", line)
	line = bytes.TrimRight(line, "\r\n")
	version, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(version) != len("HTTP/1.1") || !bytes.HasPrefix(version, []byte("HTTP/1.")) {
		return 0, bad
	}
	code, _, _ := bytes.Cut(rest, []byte(" "))
	n, err := strconv.ParseUint(string(code), 10, 16)
	if err != nil || len(code) != 3 || n < 100 {
		return 0, bad
	}
	return int(n), nil
}
