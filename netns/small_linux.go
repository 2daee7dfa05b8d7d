package netns

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// What is recorded is many small files, and so many are read and written for each container that what package os does besides, to have a
// file wait for the network poller and to look before it renames, takes most of the time.

// again calls f until no signal interrupts it.
func again[T any](f func() (T, error)) (v T, err error) {
	for {
		if v, err = f(); err != unix.EINTR {
			return v, err
		}
	}
}

func openSmall(path string, flags int) (int, error) {
	fd, err := again(func() (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC, 0o600) })
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// readFile is os.ReadFile.
func readFile(path string) ([]byte, error) {
	fd, err := openSmall(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b, err := readAll(fd)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return b, nil
}

// readAll reads up to the end.
func readAll(fd int) ([]byte, error) {
	b := make([]byte, 0, 1024)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := again(func() (int, error) { return unix.Read(fd, b[len(b):cap(b)]) })
		if n <= 0 || err != nil {
			return b, err
		}
		b = b[:len(b)+n]
	}
}

// writeWhole writes a file that is made or emptied.
func writeWhole(path string, data []byte) error {
	fd, err := openSmall(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	err = writeAll(fd, data)
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := again(func() (int, error) { return unix.Write(fd, data) })
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// rename is os.Rename for a file.
func rename(from, to string) error {
	if _, err := again(func() (struct{}, error) { return struct{}{}, unix.Rename(from, to) }); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
