package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// zstdFrame is a frame with a window, a power of two from 1 KiB on, that holds data as it is (RFC 8878, section 3.1.1).
func zstdFrame(window uint64, data []byte) []byte {
	out := append(slices.Clone(zstdMagic), 0, byte(bits.TrailingZeros64(window)-10)<<3)
	return rawBlocks(out, int(min(window, 128<<10)), data)
}

// singleSegment is a frame that is its own window.
func singleSegment(says uint64, data []byte) []byte {
	return rawBlocks(binary.LittleEndian.AppendUint64(append(slices.Clone(zstdMagic), 0xe0), says), 1<<10, data)
}

func rawBlocks(out []byte, most int, data []byte) []byte {
	for {
		n := min(most, len(data))
		header := uint32(n) << 3
		if n == len(data) {
			header |= 1 // the last one
		}
		out = append(append(out, byte(header), byte(header>>8), byte(header>>16)), data[:n]...)
		if data = data[n:]; len(data) == 0 {
			return out
		}
	}
}

// bomb is a frame that begins with data and goes on with n times 128 KiB of zeros, four bytes for each.
func bomb(data []byte, n int) []byte {
	out := zstdFrame(1<<20, data)
	out[6] &^= 1 // data is not the last block
	for range n {
		out = append(out, 2, 0, 16, 0)
	}
	return append(out, 1, 0, 0)
}

// skippable is a frame that decoders pass by.
func skippable(n int) []byte {
	out := binary.LittleEndian.AppendUint32([]byte{0x53, 0x2a, 0x4d, 0x18}, uint32(n))
	return append(out, make([]byte, n)...)
}

// parted is data in frames with these windows.
func parted(data []byte, windows ...uint64) (out []byte) {
	for i, w := range windows {
		out = append(out, zstdFrame(w, data[len(data)*i/len(windows):len(data)*(i+1)/len(windows)])...)
	}
	return out
}

// Frames are counted by their own windows, whatever the first one's is: by all who read layers and archives.
func TestZstdWindows(t *testing.T) {
	ctx := context.Background()
	const m = 1 << 20
	data := layer(t, file("x", strings.Repeat("some text ", 30_000)))
	for name, c := range map[string]struct {
		data   []byte
		memory int64
		window string // that is refused
	}{
		"skippable first":     {append(skippable(5000), zstdFrame(16*m, data)...), 0, ""},
		"small first":         {parted(data, 1<<10, 64*m), 0, ""},
		"smaller ones follow": {parted(data, 64*m, 1<<10, 64*m, 16*m), 0, ""},
		"all kinds": {slices.Concat(parted(data[:100], m, 2*m), skippable(0), singleSegment(uint64(len(data)-200), data[100:len(data)-100]), skippable(1),
			zst(t, data[len(data)-100:], zstd.WithEncoderCRC(true))), 0, ""},
		"encoded":         {append(zst(t, data[:9]), zst(t, data[9:], zstd.WithWindowSize(32*m))...), 0, ""},
		"first too large": {zstdFrame(128*m, data), 0, "128 MiB"},
		"later too large": {parted(data, 1<<10, 128*m), 0, "128 MiB"},
		"single segment":  {append(zstdFrame(1<<10, data[:9000]), singleSegment(1<<30, data[9000:])...), 0, "1 GiB"},
		"little memory":   {parted(data, 1<<10, 32*m), 32 * m, "32 MiB"},
		"odd":             {append(zstdFrame(1<<10, data[:9000]), singleSegment(1<<30+5, data[9000:])...), 0, "1073741829 bytes"},
		// What was there before is gone.
		"growing":           {parted(data, 8*m, 16*m, 32*m, 64*m), 0, ""},
		"growing and equal": {append(skippable(0), parted(data, m, 16*m, 16*m, 64*m, 64*m, 8*m, 32*m)...), 0, ""},
		"growing too large": {parted(data, 16*m, 64*m, 128*m), 0, "128 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{Limits: Limits{Memory: c.memory}})
			putImage(t, s, "a", blob{c.data, data}, blob{c.data, data})
			memory := s.limits.Memory
			for what, do := range map[string]func() error{
				"Unpack":  func() error { _, err := s.Unpack(ctx, "a", UnpackOptions{}); return err },
				"EROFS":   func() error { _, err := s.Unpack(ctx, "a", UnpackOptions{EROFS: true}); return err },
				"Extract": func() error { _, err := s.Extract(ctx, "a", t.TempDir(), UnpackOptions{}); return err },
				"Squash":  func() error { _, err := s.Squash(ctx, "b", SquashOptions{Image: "a"}); return err },
				"Import":  func() error { _, err := s.Import(ctx, bytes.NewReader(c.data), "c", ImportOptions{}); return err },
				"Load": func() error { // which is no archive of images
					_, err := s.Load(ctx, bytes.NewReader(c.data), LoadOptions{})
					if errors.Is(err, ErrDocument) {
						err = nil
					}
					return err
				},
			} {
				err := do()
				var le *LimitError
				switch {
				case c.window == "":
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				case !errors.As(err, &le) || le.Limit != "Memory" || le.Max != memory || le.Need <= memory || le.What != "a zstd window of "+c.window:
					t.Errorf("%s: %+v, %v, want a window of %s", what, le, err, c.window)
				case !strings.Contains(err.Error(), fmt.Sprintf("more than Limits.Memory allows (%d): a zstd window of %s takes %d", memory, c.window, le.Need)):
					t.Errorf("%s: %v", what, err)
				}
			}
			if c.window == "" && string(must[[]byte](t)(os.ReadFile(must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{})).Dirs[0]+"/x"))) != strings.Repeat("some text ", 30_000) {
				t.Error("the file differs")
			}
		})
	}
}

// The reader that looks for windows passes on what it reads, cut wherever it is, and takes what is no frame for the decoder to judge.
func TestZstdFramesCut(t *testing.T) {
	data := bytes.Repeat([]byte("abcdefgh"), 40_000)
	good := slices.Concat(skippable(7), zstdFrame(1<<20, data), zst(t, data, zstd.WithEncoderCRC(true)), singleSegment(8, data[:8]), skippable(0), zst(t, nil), zst(t, make([]byte, 1<<20)))
	want := slices.Concat(data, data, data[:8], make([]byte, 1<<20))
	for _, n := range []int{1, 2, 3, 7, 64 << 10} {
		var seen []int64
		f := &zstdFrames{r: io.MultiReader(cuts(good, n)...), window: func(w int64) error { seen = append(seen, w); return nil }}
		z := must[*zstd.Decoder](t)(zstd.NewReader(f, zstd.WithDecoderConcurrency(1)))
		var out bytes.Buffer
		if _, err := out.ReadFrom(z); err != nil || !bytes.Equal(out.Bytes(), want) {
			t.Errorf("cut in %d: %v, %d bytes", n, err, out.Len())
		}
		z.Close()
		if len(seen) < 4 || seen[0] != 1<<20 || !slices.Contains(seen, 1<<10) {
			t.Errorf("cut in %d: windows %v", n, seen)
		}
	}
	stop := errors.New("stop")
	f := &zstdFrames{r: bytes.NewReader(zstdFrame(1<<20, data)), window: func(int64) error { return stop }}
	if n, err := f.Read(make([]byte, 100)); n != 0 || err != stop || f.err != stop {
		t.Errorf("%d, %v, %v", n, err, f.err)
	}
}

// cuts gives n bytes at a time.
func cuts(data []byte, n int) (out []io.Reader) {
	for c := range slices.Chunk(data, n) {
		out = append(out, bytes.NewReader(c))
	}
	return out
}
