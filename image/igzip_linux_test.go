package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// needIgzip skips a test where the program is not.
func needIgzip(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("igzip")
	if err != nil {
		t.Skip("no igzip on this machine: install the package isal")
	}
	return path
}

// fakeIgzip makes a script the igzip that is found.
func fakeIgzip(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "igzip"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

// igzipLayer is a layer that does not compress.
func igzipLayer(t testing.TB) []byte {
	noise := make([]byte, 300<<10)
	rand.New(rand.NewSource(1)).Read(noise)
	return layer(t, dir("d"), file("d/noise", string(noise)), file("d/text", strings.Repeat("text ", 1000)), file("d/end", "the end"))
}

// TestIgzip compares the program with our decoder: what it makes of a blob, and what is wrong with broken ones.
func TestIgzip(t *testing.T) {
	needIgzip(t)
	testutil.NoLeaks(t)
	plain := igzipLayer(t)
	good := gz(t, plain)
	edit := func(f func(b []byte) []byte) blob { return blob{f(bytes.Clone(good)), plain} }
	flip := func(at int) blob { return edit(func(b []byte) []byte { b[at] ^= 0x40; return b }) }
	for name, b := range map[string]blob{
		"whole":              {good, plain},
		"two members":        {append(gz(t, plain[:5000]), gz(t, plain[5000:])...), plain},
		"empty last member":  {append(bytes.Clone(good), gz(t, nil)...), plain},
		"zstd":               {zst(t, plain), plain},
		"garbage at the end": edit(func(b []byte) []byte { return append(b, "garbage"...) }),
		"zeros at the end":   edit(func(b []byte) []byte { return append(b, make([]byte, 1024)...) }),
		"half a member":      edit(func(b []byte) []byte { return append(b, b[:300]...) }),
		"header only":        edit(func(b []byte) []byte { return b[:12] }),
		"cut in the middle":  edit(func(b []byte) []byte { return b[:len(b)/2] }),
		"cut in the trailer": edit(func(b []byte) []byte { return b[:len(b)-3] }),
		"no trailer":         edit(func(b []byte) []byte { return b[:len(b)-8] }),
		"checksum":           flip(len(good) - 6),
		"length":             flip(len(good) - 2),
		"a bit":              flip(len(good) / 2),
		"method":             flip(2),
		"another's digest":   {gz(t, layer(t, file("x", "x"))), plain},
		"bomb":               {bytes.Repeat(gz(t, make([]byte, 1<<20)), 66), plain},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{Limits: Limits{Ratio: 100}})
			putImage(t, s, "test", b)
			_, want := s.Extract(context.Background(), "test", t.TempDir(), UnpackOptions{})
			to := t.TempDir()
			_, err := s.Extract(context.Background(), "test", to, UnpackOptions{Igzip: true})
			if want == nil && err == nil {
				if text, err := os.ReadFile(to + "/d/end"); string(text) != "the end" {
					t.Errorf("%q, %v", text, err)
				}
			}
			_, uerr := s.Unpack(context.Background(), "test", UnpackOptions{Igzip: true})
			for _, err := range []error{err, uerr} {
				for _, kind := range []error{nil, ErrArchive, ErrDigest, ErrLimit} {
					if errors.Is(err, kind) != errors.Is(want, kind) {
						t.Errorf("%v\nby our decoder: %v", err, want)
					}
				}
			}
		})
	}
}

// TestIgzipAlone looks at what the program is given.
func TestIgzipAlone(t *testing.T) {
	real := needIgzip(t)
	testutil.NoLeaks(t)
	seen := filepath.Join(t.TempDir(), "seen")
	fakeIgzip(t, `{ tr '\0' '\n' </proc/$$/environ; for f in /proc/$$/fd/*; do echo "fd ${f##*/}"; done; pwd; } >`+seen+"\nexec "+real+` "$@"`)
	t.Setenv("SECRET", "of the program")
	fd, err := unix.FcntlInt(0, unix.F_DUPFD, 200) // that nobody closes
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s := openStore(t, Options{})
	unpackOneIgzip(t, s)
	told, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(told)), "\n") {
		switch line {
		case "fd 0", "fd 1", "fd 2", "/":
		case "fd 3", "fd 10", "fd 11", "fd 12": // the shell's, of its script
		default:
			t.Errorf("the program sees %q", line)
		}
	}
}

func unpackOneIgzip(t *testing.T, s *Store) {
	t.Helper()
	data := igzipLayer(t)
	putImage(t, s, "test", blob{gz(t, data), data})
	if _, err := s.Unpack(context.Background(), "test", UnpackOptions{Igzip: true}); err != nil {
		t.Fatal(err)
	}
}

// TestIgzipFails has programs that are missing, lie, die, or never end.
func TestIgzipFails(t *testing.T) {
	testutil.NoLeaks(t)
	data := layer(t, file("x", "x"))
	s := openStore(t, Options{})
	putImage(t, s, "test", blob{gz(t, data), data})
	fails := func(ctx context.Context, want error, words string) {
		t.Helper()
		before := listing(t, s)
		_, err := s.Unpack(ctx, "test", UnpackOptions{Igzip: true})
		if !errors.Is(err, want) && want != nil || err == nil || errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want %v with %q", err, want, words)
		}
		if len(listing(t, s)) != len(before) {
			t.Error("the store changed")
		}
	}
	fakeIgzip(t, `exit 3`)
	fails(context.Background(), nil, "leave UnpackOptions.Igzip out")
	fakeIgzip(t, `echo no memory >&2; kill -9 $$`)
	fails(context.Background(), nil, "no memory")
	fakeIgzip(t, `echo wrong`)
	fails(context.Background(), nil, "")
	started := filepath.Join(t.TempDir(), "started")
	fakeIgzip(t, `echo >`+started+`; exec sleep 1000`)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		testutil.Eventually(testutil.Time(time.Minute), func() bool { _, err := os.Lstat(started); return err == nil })
		cancel()
	}()
	fails(ctx, context.Canceled, "")
	fakeIgzip(t, `head -c 600000 /dev/zero | tr '\0' x; exec sleep 1000`) // it is not waited for when the layer has failed
	if _, err := s.Unpack(context.Background(), "test", UnpackOptions{Igzip: true}); !errors.Is(err, ErrArchive) {
		t.Errorf("%v, want %v", err, ErrArchive)
	}
	t.Setenv("PATH", t.TempDir())
	fails(context.Background(), exec.ErrNotFound, "package isal")
	if _, err := s.Extract(context.Background(), "test", t.TempDir(), UnpackOptions{Igzip: true}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("Extract: %v", err)
	}
	if _, err := s.Unpack(context.Background(), "test", UnpackOptions{}); err != nil {
		t.Errorf("unasked: %v", err)
	}
}

// TestIgzipOnce has whole blobs decoded by the program alone, of however many members they are and into buffers of any size, and others looked through.
func TestIgzipOnce(t *testing.T) {
	path := needIgzip(t)
	testutil.NoLeaks(t)
	plain := igzipLayer(t)
	good := gz(t, plain)
	many := bytes.Clone(gz(t, plain[:1]))
	for i := 1; i < len(plain); i += 4001 {
		many = append(many, gz(t, plain[i:min(i+4001, len(plain))])...)
	}
	for name, tt := range map[string]struct {
		blob   []byte
		looked bool
	}{
		"one":     {good, false},
		"many":    {many, false},
		"empty":   {append(bytes.Clone(good), gz(t, nil)...), false},
		"garbage": {append(bytes.Clone(good), "garbage"...), true},
		"cut":     {good[:len(good)-1], true},
		"no end":  {append(bytes.Clone(many), good[:20]...), true},
		// Headers that end where the blob does, and have the beginning of what comes after it for a field of theirs.
		"extra":      {append(bytes.Clone(good), 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 10, 0), true},
		"more extra": {append(bytes.Clone(good), 0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 15, 0, 1, 2, 3, 4, 5), true},
		"name":       {append(bytes.Clone(good), 0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0xff), true},
		"comment":    {append(bytes.Clone(good), 0x1f, 0x8b, 8, 16, 0, 0, 0, 0, 0, 0xff), true},
		"both":       {append(bytes.Clone(good), 0x1f, 0x8b, 8, 24, 0, 0, 0, 0, 0, 0xff), true},
		"all":        {append(bytes.Clone(good), 0x1f, 0x8b, 8, 30, 0, 0, 0, 0, 0, 0xff, 1, 0, 1), true},
	} {
		for _, size := range []int{7, igzipSeal, igzipSeal + 1, 1 << 20} {
			if size == 7 && name != "many" {
				continue
			}
			f := must[*os.File](t)(os.Create(filepath.Join(t.TempDir(), "blob")))
			must[int](t)(f.Write(tt.blob))
			z := must[*igzipReader](t)(startIgzip(context.Background(), f, path))
			var out bytes.Buffer
			_, err := io.CopyBuffer(struct{ io.Writer }{&out}, onlyReader{z}, make([]byte, size))
			if z.looked != tt.looked || (err != nil) != tt.looked {
				t.Errorf("%s: looked through in Go: %v, %v", name, z.looked, err)
			}
			if !tt.looked && (!bytes.Equal(out.Bytes(), plain) || z.given.Load() != int64(len(tt.blob))) {
				t.Errorf("%s: %d bytes, want %d; given %d of %d", name, out.Len(), len(plain), z.given.Load(), len(tt.blob))
			}
			z.close()
			f.Close()
		}
	}
}
