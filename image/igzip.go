package image

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// igzipProgram decompresses gzip in half the time that it takes in Go.
const igzipProgram = "igzip"

// findIgzip looks for the program, if it is wanted.
func findIgzip(wanted bool) (string, error) {
	if !wanted {
		return "", nil
	}
	path, err := exec.LookPath(igzipProgram)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", &Error{Op: "find program", Object: igzipProgram, Err: underlyingExec(err),
			Remedy: "install it (the package isal of Debian, Ubuntu and Fedora), or leave UnpackOptions.Igzip out"}
	}
	return path, nil
}

// underlyingExec leaves out what the message says anyhow.
func underlyingExec(err error) error {
	if e, ok := err.(*exec.Error); ok {
		return e.Err
	}
	return err
}

// newBlobStream is newStream for a blob of the store, of which buffered has read the beginning. igzip is the program that
// decompresses it if it is gzip; empty for none.
func newBlobStream(ctx context.Context, blob *os.File, buffered *bufio.Reader, igzip string, n *notes, b *budget, onRead func(int64)) (*stream, error) {
	if igzip != "" {
		if head, err := buffered.Peek(4); err == nil && sniff(head) == gzipped {
			return newIgzipStream(ctx, blob, igzip, b, onRead)
		}
	}
	return newStream(ctx, buffered, n, b, onRead)
}
