package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// An archive of images that is broken, or much larger than what it is made of, is refused as a layer is. One that cannot be read is not to blame.
func TestLoadCompressed(t *testing.T) {
	ctx := context.Background()
	src := openStore(t, Options{})
	putImage(t, src, "a", plain(randomLayer2(t, 300_000)))
	good := saved(t, src, "a")
	noise := bytes.Repeat([]byte{0xff}, 1000)
	spoilt := func(data []byte) []byte { return slices.Concat(data[:len(data)/2], noise, data[len(data)/2+1000:]) }
	zeros := layer(t, file("zeros", "").with(func(h *tar.Header) { h.Format = tar.FormatUSTAR; h.ModTime = h.ModTime.Truncate(time.Second) }))[:512]
	copy(zeros[124:], "10000000000\x00") // octal: 1 GiB
	fixSum(zeros)
	trouble := errors.New("a cable was pulled")
	ratio := &LimitError{Limit: "Ratio", Max: Limits{}.withDefaults().Ratio}
	for name, c := range map[string]struct {
		r    io.Reader
		want error
	}{
		"gzip":           {bytes.NewReader(gz(t, good)), nil},
		"zstd":           {bytes.NewReader(zst(t, good)), nil},
		"gzip spoilt":    {bytes.NewReader(spoilt(gz(t, good))), ErrArchive},
		"zstd spoilt":    {bytes.NewReader(spoilt(zst(t, good))), ErrArchive},
		"gzip cut":       {bytes.NewReader(gz(t, good)[:2000]), ErrArchive},
		"zstd cut":       {bytes.NewReader(zst(t, good)[:2000]), ErrArchive},
		"no gzip":        {bytes.NewReader([]byte("\x1f\x8bsomething else")), ErrArchive},
		"no zstd":        {bytes.NewReader(append([]byte("\x28\xb5\x2f\xfd"), noise...)), ErrArchive},
		"zstd bomb":      {bytes.NewReader(bomb(zeros, 600)), ratio},
		"gzip trouble":   {io.MultiReader(bytes.NewReader(gz(t, good)[:2000]), iotest.ErrReader(trouble)), trouble},
		"zstd trouble":   {io.MultiReader(bytes.NewReader(zst(t, good)[:2000]), iotest.ErrReader(trouble)), trouble},
		"trouble":        {io.MultiReader(bytes.NewReader(good[:2000]), iotest.ErrReader(trouble)), trouble},
		"trouble before": {iotest.ErrReader(trouble), trouble},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			_, err := s.Load(ctx, c.r, LoadOptions{})
			var le *LimitError
			switch {
			case c.want == error(ratio):
				if !errors.As(err, &le) || *le != *ratio {
					t.Errorf("%v, want %v", err, ratio)
				}
			case !errors.Is(err, c.want) || c.want == trouble && errors.Is(err, ErrArchive):
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	s := openStore(t, Options{})
	if _, err := s.Import(ctx, io.MultiReader(bytes.NewReader(gz(t, good)[:2000]), iotest.ErrReader(trouble)), "b", ImportOptions{}); !errors.Is(err, trouble) || errors.Is(err, ErrArchive) {
		t.Errorf("import: %v", err)
	}
}

// What is remembered of a layer and what its decoder keeps are bounded together.
func TestMemoryIsOneBound(t *testing.T) {
	ctx := context.Background()
	const mib = 1 << 20
	data := rememberedLayer(t, "d", 500) // some 5 MiB
	for name, c := range map[string]struct {
		memory int64
		data   []byte
		fits   bool
	}{
		"plain":          {16 * mib, data, true},
		"with a window":  {96 * mib, zstdFrame(64*mib, data), true},
		"no memory left": {64*mib + minMemory, zstdFrame(64*mib, data), false},
		"none in time":   {64*mib + minMemory, parted(data, 1<<10, 64*mib), false},
	} {
		s := openStore(t, Options{Limits: Limits{Memory: c.memory}})
		putImage(t, s, "a", blob{c.data, data})
		_, err := s.Unpack(ctx, "a", UnpackOptions{EROFS: true})
		var le *LimitError
		if c.fits != (err == nil) || err != nil && (!errors.As(err, &le) || le.Limit != "Memory" || le.Max != c.memory || le.Need <= c.memory) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// In a directory of all layers one remembers its own names, which whiteouts do not hide.
	n := &notes{max: 1 * mib, limit: minMemory}
	a := &applier{made: map[uint64]struct{}{}, notes: n}
	err, names := error(nil), 0
	for ; err == nil && names < mib; names++ {
		err = a.remember("d/" + strconv.Itoa(names))
	}
	if names > mib/(notesGarbage*madeBytes) || !errors.Is(err, ErrLimit) {
		t.Errorf("%d names: %v", names, err)
	}
	if err := n.hold(notesGarbage*madeBytes, "a window"); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "a window takes") {
		t.Error(err)
	}
	n.shrink(names / 2 * madeBytes)
	if err := n.hold(mib/2-1000, "a window"); err != nil {
		t.Error(err)
	}
	if err := n.grow(1000); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
}
