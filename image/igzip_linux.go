package image

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
)

// igzipReader is the output of igzip, which reads a blob by itself.
type igzipReader struct {
	ctx    context.Context
	blob   *os.File
	size   int64
	out    int
	ends   int // can be read when the process has ended
	exit   chan error
	kill   context.CancelFunc
	path   string
	stderr int
	n      int64  // bytes so far
	sum    uint32 // and their checksum, as gzip has it
	err    error  // the end
}

// newIgzipStream decompresses a blob by a program. What is not a gzip stream at all is refused before.
func newIgzipStream(ctx context.Context, blob *os.File, program string, b *budget, onRead func(int64)) (*stream, error) {
	z, err := startIgzip(ctx, blob, program)
	if err != nil {
		return nil, err
	}
	st := startStream(z, z.close, z.read, streamPool.Get().(*streamBuffers), b, onRead)
	st.cancel = z.kill
	return st, nil
}

func startIgzip(ctx context.Context, blob *os.File, program string) (*igzipReader, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	fi, err := blob.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := gzip.NewReader(bufio.NewReaderSize(io.NewSectionReader(blob, 0, fi.Size()), 4096)); err != nil {
		return nil, because(ErrArchive, "%v", err)
	}
	if _, err := blob.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	z := &igzipReader{ctx: ctx, blob: blob, size: fi.Size(), path: program, exit: make(chan error, 1)}
	if err := z.start(); err != nil {
		return nil, &Error{Op: "run", Object: program, Err: underlying(err)}
	}
	return z, nil
}

// start makes the process. It has the blob, two pipes and nothing else of this program's.
func (z *igzipReader) start() error {
	var p [3][2]int
	for i := range p {
		if err := unix.Pipe2(p[i][:], unix.O_CLOEXEC); err != nil {
			for _, made := range p[:i] {
				unix.Close(made[0])
				unix.Close(made[1])
			}
			return os.NewSyscallError("pipe2", err)
		}
	}
	z.out, z.stderr, z.ends = p[0][0], p[1][0], p[2][0]
	_, _ = unix.FcntlInt(uintptr(z.out), unix.F_SETPIPE_SZ, 1<<20) // or it stays as it is: slower
	stdout, stderr, ended := os.NewFile(uintptr(p[0][1]), "stdout"), os.NewFile(uintptr(p[1][1]), "stderr"), os.NewFile(uintptr(p[2][1]), "ended")
	z.ctx, z.kill = context.WithCancel(z.ctx)
	cmd := namespaces.CommandContext(z.ctx, z.path, "-d", "-c")
	cmd.Set, cmd.Env, cmd.Dir = namespaces.HostSet(), []string{}, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = z.blob, stdout, stderr
	cmd.Survive = true // without this program it cannot write, and ends by that
	err := cmd.Start()
	stdout.Close()
	stderr.Close()
	if err != nil {
		ended.Close()
		z.exit <- nil
		z.close()
		return err
	}
	go func() {
		z.exit <- cmd.Wait()
		_, _ = ended.Write([]byte{0}) // whoever reads may have gone
		ended.Close()
	}()
	return nil
}

// read is how far the program is in the blob: both have the same open file.
func (z *igzipReader) read() int64 {
	n, err := z.blob.Seek(0, io.SeekCurrent)
	if err != nil {
		return z.size
	}
	return n
}

// Read implements io.Reader. The end is that of the process, not of the pipe: processes that other goroutines are making in this
// moment hold its other end too.
func (z *igzipReader) Read(p []byte) (int, error) {
	for z.err == nil {
		fds := []unix.PollFd{{Fd: int32(z.out), Events: unix.POLLIN}, {Fd: int32(z.ends), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR || err == unix.EAGAIN {
			continue
		} else if err != nil {
			return 0, os.NewSyscallError("poll", err)
		}
		// It may have written its last bytes between the looks at the two, and then ended.
		if last := fds[:1]; fds[0].Revents&unix.POLLIN == 0 {
			if _, err := unix.Poll(last, 0); err != nil {
				continue
			}
		}
		if fds[0].Revents&unix.POLLIN != 0 {
			n, err := unix.Read(z.out, p)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return 0, os.NewSyscallError("read", err)
			}
			z.sum = crc32.Update(z.sum, crc32.IEEETable, p[:n])
			z.n += int64(n)
			return n, nil
		}
		exit := <-z.exit // it has ended, or closed its output to end in this moment
		z.exit <- nil
		z.err = z.judge(exit)
	}
	return 0, z.err
}

// judge tells what the end of the process means, io.EOF that all is well. The program takes what follows the last member for nothing, and does not tell what is wrong
// well enough: so where the last checksum is not that of everything, our decoder says.
func (z *igzipReader) judge(exit error) error {
	if z.ctx.Err() != nil {
		return context.Cause(z.ctx)
	}
	var trailer [8]byte
	if exit == nil && z.size >= int64(len(trailer)) {
		if _, err := z.blob.ReadAt(trailer[:], z.size-int64(len(trailer))); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(trailer[:]) == z.sum && binary.LittleEndian.Uint32(trailer[4:]) == uint32(z.n) {
			return io.EOF
		}
	}
	n, err := z.decode()
	switch {
	case err != nil:
		return err
	case exit == nil && n == z.n:
		return io.EOF
	case exit == nil:
		exit = errors.New("its output is not what the blob holds")
	}
	if said := z.said(); said != "" {
		exit = errors.Join(exit, errors.New(said))
	}
	return &Error{Op: "run", Object: z.path, Err: exit, Remedy: "leave UnpackOptions.Igzip out"}
}

// igzipAhead is not less than what igzip may have decoded and not written when it failed.
const igzipAhead = 64 << 20

// decode looks through the blob in Go, no further than the program can have come, and returns how much it holds.
func (z *igzipReader) decode() (int64, error) {
	r, err := gzip.NewReader(bufio.NewReaderSize(&ctxReader{z.ctx, io.NewSectionReader(z.blob, 0, z.size)}, 64<<10))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.CopyBuffer(io.Discard, onlyReader{io.LimitReader(r, z.n+igzipAhead)}, make([]byte, 64<<10))
}

// said is the beginning of what the program wrote to its standard error.
func (z *igzipReader) said() string {
	if unix.SetNonblock(z.stderr, true) != nil {
		return ""
	}
	var buf [512]byte
	n, _ := unix.Read(z.stderr, buf[:])
	return clip(strings.TrimSpace(string(buf[:max(n, 0)])))
}

// close ends the process, if it is still there.
func (z *igzipReader) close() {
	z.kill()
	<-z.exit
	for _, fd := range []int{z.out, z.stderr, z.ends} {
		unix.Close(fd)
	}
}
