package image

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
)

// igzipReader is the output of igzip. It is given a blob, and after that one gzip member more, which nobody can know before: what that holds comes out at the very end only
// if the blob is whole members to its last byte, however many. The program itself takes whatever else follows a member for nothing.
type igzipReader struct {
	ctx    context.Context
	blob   *os.File
	size   int64
	given  atomic.Int64  // bytes of the blob
	fed    chan struct{} // closed when nothing more is given
	seal   [igzipSeal]byte
	held   [igzipSeal]byte // the last bytes of the output so far, kept of them
	kept   int
	in     *os.File
	out    int
	ends   int // can be read when the process has ended
	exit   chan error
	kill   context.CancelFunc
	path   string
	stderr int
	n      int64 // bytes so far, without those
	looked bool  // through the blob once more
	err    error // the end
}

// igzipSeal is how much the last member holds.
const igzipSeal = 16

// igzipExtra bounds the extra field of that member's header: what its length fits in.
const igzipExtra = 1 << 16

// newIgzipStream decompresses a blob by a program. What is not a gzip stream at all is refused before.
func newIgzipStream(ctx context.Context, blob *os.File, program string, b *budget, onRead func(int64)) (*stream, error) {
	z, err := startIgzip(ctx, blob, program)
	if err != nil {
		return nil, err
	}
	st := startStream(z, z.close, z.given.Load, streamPool.Get().(*streamBuffers), b, onRead)
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
	z := &igzipReader{ctx: ctx, blob: blob, size: fi.Size(), path: program, exit: make(chan error, 1), fed: make(chan struct{})}
	_, _ = rand.Read(z.seal[:]) // never fails
	if err := z.start(); err != nil {
		return nil, &Error{Op: "run", Object: program, Err: underlying(err)}
	}
	return z, nil
}

// start makes the process. It has three pipes and nothing else of this program's.
func (z *igzipReader) start() error {
	var p [4][2]int
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
	_ = unix.SetNonblock(p[3][1], true)                            // so that closing it ends a write; the program's end is not concerned
	stdin := os.NewFile(uintptr(p[3][0]), "stdin")
	z.in = os.NewFile(uintptr(p[3][1]), "blob")
	stdout, stderr, ended := os.NewFile(uintptr(p[0][1]), "stdout"), os.NewFile(uintptr(p[1][1]), "stderr"), os.NewFile(uintptr(p[2][1]), "ended")
	z.ctx, z.kill = context.WithCancel(z.ctx)
	cmd := namespaces.CommandContext(z.ctx, z.path, "-d", "-c")
	cmd.Set, cmd.Env, cmd.Dir = namespaces.HostSet(), []string{}, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.Survive = true // without this program it cannot write, and ends by that
	err := cmd.Start()
	stdin.Close()
	stdout.Close()
	stderr.Close()
	if err != nil {
		ended.Close()
		z.in.Close()
		close(z.fed)
		z.exit <- nil
		z.close()
		return err
	}
	go z.feed()
	go func() {
		z.exit <- cmd.Wait()
		_, _ = ended.Write([]byte{0}) // whoever reads may have gone
		ended.Close()
	}()
	return nil
}

// feed gives the program what it decodes. It ends with the process, or when its end of the pipe is closed.
func (z *igzipReader) feed() {
	defer close(z.fed)
	defer z.in.Close()
	from := io.NewSectionReader(z.blob, 0, z.size)
	if n, err := io.CopyBuffer(onlyWriter{z}, onlyReader{from}, make([]byte, 64<<10)); err == nil && n == z.size {
		_, _ = z.in.Write(igzipMember(z.seal[:])) // or the output tells
	}
}

// onlyWriter counts what the program was given.
type onlyWriter struct{ z *igzipReader }

func (w onlyWriter) Write(p []byte) (int, error) {
	n, err := w.z.in.Write(p)
	w.z.given.Add(int64(n))
	return n, err
}

// igzipMember is a gzip member that holds data as it is (RFC 1952, and RFC 1951 section 3.2.4). Its header is of a length that nobody can know before, and has no byte that is zero: a
// blob may break off in a header of its own, and a field of that, of any length or to the next zero, must not end where the data of this one begins.
func igzipMember(data []byte) []byte {
	var length [2]byte
	_, _ = rand.Read(length[:]) // never fails
	extra := int(binary.LittleEndian.Uint16(length[:]))%(igzipExtra-1024) + 1024 | 1
	m := make([]byte, 12+extra, 12+extra+5+len(data)+8)
	_, _ = rand.Read(m)
	for i, c := range m {
		if c == 0 {
			m[i] = 0xff
		}
	}
	copy(m, []byte{0x1f, 0x8b, 8, 4}) // FEXTRA; the time is any
	binary.LittleEndian.PutUint16(m[10:], uint16(extra))
	m = append(m, 1)
	m = binary.LittleEndian.AppendUint16(m, uint16(len(data)))
	m = binary.LittleEndian.AppendUint16(m, ^uint16(len(data)))
	m = append(m, data...)
	m = binary.LittleEndian.AppendUint32(m, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(m, uint32(len(data)))
}

// Read implements io.Reader. The last bytes are held back, as they may be the seal.
func (z *igzipReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var small [2 * igzipSeal]byte
	buf := p
	if len(p) <= igzipSeal {
		buf = small[:igzipSeal+len(p)]
	}
	for {
		h := copy(buf, z.held[:z.kept])
		n, err := z.raw(buf[h:])
		if err == io.EOF && z.kept > 0 { // an igzip that takes one member only
			n = copy(p, z.held[:z.kept])
			z.kept = copy(z.held[:], z.held[n:z.kept])
			return n, nil
		}
		if err != nil {
			return 0, err
		}
		out := max(h+n-igzipSeal, 0)
		z.kept = copy(z.held[:], buf[out:h+n])
		if z.n += int64(out); out > 0 {
			if len(p) <= igzipSeal {
				copy(p, buf[:out])
			}
			return out, nil
		}
	}
}

// raw reads what comes out of the program. The end is that of the process, not of the pipe: processes that other goroutines are making in this
// moment hold its other end too.
func (z *igzipReader) raw(p []byte) (int, error) {
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
			return n, nil
		}
		exit := <-z.exit // it has ended, or closed its output to end in this moment
		z.exit <- nil
		z.err = z.judge(exit)
	}
	return 0, z.err
}

// judge tells what the end of the process means, io.EOF that all is well. The program does not tell what is wrong well enough: so where the seal is not what comes last, our
// decoder says.
func (z *igzipReader) judge(exit error) error {
	if z.ctx.Err() != nil {
		return context.Cause(z.ctx)
	}
	if exit == nil && z.kept == igzipSeal && z.held == z.seal {
		z.kept = 0
		return io.EOF
	}
	n, err := z.decode()
	switch {
	case err != nil && z.ctx.Err() != nil:
		return context.Cause(z.ctx)
	case err != nil:
		return decodeError(err)
	case exit == nil && n == z.n+int64(z.kept):
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
	z.looked = true
	r, err := gzip.NewReader(bufio.NewReaderSize(&ctxReader{z.ctx, io.NewSectionReader(z.blob, 0, z.size)}, 64<<10))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.CopyBuffer(io.Discard, onlyReader{io.LimitReader(r, z.n+igzipSeal+igzipAhead)}, make([]byte, 64<<10))
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
	z.in.Close()
	<-z.fed
	for _, fd := range []int{z.out, z.stderr, z.ends} {
		unix.Close(fd)
	}
}
