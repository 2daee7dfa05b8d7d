package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/caisson-go/caisson/internal/testutil"
)

// Every kind of hostile layer has its error, which names layer and entry, and leaves the store as it was.
func TestHostileLayers(t *testing.T) {
	device := func(major, minor int64) ent {
		return ent{name: "dev", kind: tar.TypeChar}.with(func(h *tar.Header) { h.Devmajor, h.Devminor = major, minor })
	}
	many := make([]ent, 50)
	for i := range many {
		many[i] = file(fmt.Sprint("f", i), "")
	}
	flood := file("x", "").with(func(h *tar.Header) {
		h.PAXRecords = map[string]string{}
		for i := range 200 {
			h.PAXRecords[fmt.Sprint("SCHILY.xattr.user.a", i)] = "x"
		}
	})
	for name, c := range map[string]struct {
		o    Options
		data []byte
		want error
		ent  string
	}{
		"dotdot":                {Options{}, layer(t, file("../evil", "x")), ErrTraversal, "../evil"},
		"dotdot inside":         {Options{}, layer(t, dir("a"), file("a/../../evil", "x")), ErrTraversal, "a/../../evil"},
		"dotdot absolute":       {Options{}, layer(t, file("/../evil", "x")), ErrTraversal, "/../evil"},
		"hard link dotdot":      {Options{}, layer(t, hard("x", "../../etc/passwd")), ErrTraversal, "x"},
		"hard link out":         {Options{}, layer(t, hard("x", "/etc/passwd")), ErrBadLink, "x"},
		"hard link to dir":      {Options{}, layer(t, dir("d"), hard("x", "d")), ErrBadLink, "x"},
		"hard link to root":     {Options{}, layer(t, hard("x", "/")), ErrBadLink, "x"},
		"hard link to self":     {Options{}, layer(t, file("x", ""), hard("x", "./x")), ErrBadLink, "x"},
		"hard link via link":    {Options{}, layer(t, link("e", "/etc"), hard("x", "e/passwd")), ErrBadLink, "x"},
		"hard link to whiteout": {Options{}, layer(t, file(".wh.gone", ""), hard("x", "gone")), ErrBadLink, "x"},
		"root is a link":        {Options{}, layer(t, link("./", "/etc")), ErrRootReplaced, "./"},
		"root is a file":        {Options{}, layer(t, file(".", "x")), ErrRootReplaced, "."},
		"root is a hardlink":    {Options{}, layer(t, file("f", ""), hard("/", "f")), ErrRootReplaced, "/"},
		"parent is a file":      {Options{}, layer(t, file("f", ""), file("f/x", "")), ErrBadHeader, "f/x"},
		"not UTF-8":             {Options{}, rawNamed(t, "bad\xff\xfename"), ErrBadName, "bad\xff\xfename"},
		"long name":             {Options{}, layer(t, file(strings.Repeat("n", 256), "")), ErrBadName, strings.Repeat("n", 256)},
		"long path":             {Options{}, layer(t, file(strings.Repeat("abc/", 1024)+"x", "")), ErrBadName, ""},
		"deep":                  {Options{Limits: Limits{Depth: 10}}, layer(t, file(strings.Repeat("d/", 10)+"x", "")), ErrLimit, strings.Repeat("d/", 10) + "x"},
		"empty whiteout":        {Options{}, layer(t, file("d/.wh.", "")), ErrBadWhiteout, "d/.wh."},
		"whiteout of dotdot":    {Options{}, layer(t, file("d/.wh...", "")), ErrBadWhiteout, "d/.wh..."},
		"whiteout of dot":       {Options{}, layer(t, file("d/.wh..", "")), ErrBadWhiteout, "d/.wh.."},
		"in a whiteout":         {Options{}, layer(t, file(".wh.x/y", "")), ErrBadWhiteout, ".wh.x/y"},
		"overlay's whiteout":    {Options{}, layer(t, device(0, 0)), ErrDevice, "dev"},
		"device refused":        {Options{Policy: Policy{Devices: DevicesRefused}}, layer(t, device(8, 0)), ErrDevice, "dev"},
		"device numbers":        {Options{}, layer(t, device(1<<20, 0)), ErrBadHeader, "dev"},
		"owner":                 {Options{}, layer(t, file("x", "").with(func(h *tar.Header) { h.Uid = 1 << 32 })), ErrBadHeader, "x"},
		"negative owner":        {Options{}, layer(t, file("x", "").with(func(h *tar.Header) { h.Gid = -1; h.Format = tar.FormatGNU })), ErrBadHeader, "x"},
		"empty link":            {Options{}, layer(t, link("x", "")), ErrBadHeader, "x"},
		"link with content":     {Options{}, sizedLink(t), ErrBadHeader, "x"},
		"entries":               {Options{Limits: Limits{Entries: 40}}, layer(t, many...), ErrLimit, "f39"},
		"implied entries":       {Options{Limits: Limits{Entries: 40}}, layer(t, file(strings.Repeat("d/", 50)+"x", "")), ErrLimit, strings.Repeat("d/", 50) + "x"},
		"bytes":                 {Options{Limits: Limits{Bytes: 100_000}}, layer(t, file("x", strings.Repeat("x", 200_000))), ErrLimit, ""},
		"xattr flood":           {Options{}, layer(t, flood), ErrLimit, "x"},
		"sparse bomb":           {Options{Limits: Limits{Bytes: 1 << 30}}, sparseLayer(t, 1<<40), ErrLimit, "hole"},
		"truncated":             {Options{}, layer(t, file("x", strings.Repeat("x", 5000)))[:3000], ErrArchive, "x"},
		"cut header":            {Options{}, layer(t, file("x", ""))[:300], ErrArchive, ""},
		"garbage":               {Options{}, bytes.Repeat([]byte("garbage "), 1000), ErrArchive, ""},
		"cut gzip":              {Options{}, gz(t, layer(t, file("x", "y")))[:60], ErrArchive, ""},
		"gzip bomb":             {Options{Limits: Limits{Ratio: 100}}, gz(t, layer(t, file("x", strings.Repeat("\x00", 70<<20)))), ErrLimit, ""},
		"zstd bomb":             {Options{}, zst(t, layer(t, file("x", strings.Repeat("\x00", 100<<20))), zstd.WithWindowSize(1<<20)), ErrLimit, ""},
		"zstd window":           {Options{Limits: Limits{Memory: 32 << 20}}, zst(t, randomLayer(t, 33<<20), zstd.WithWindowSize(32<<20)), ErrLimit, ""},
		"zstd garbage":          {Options{}, append([]byte{0x28, 0xb5, 0x2f, 0xfd}, bytes.Repeat([]byte{0xff}, 100)...), ErrArchive, ""},
		"wrong diff id":         {Options{}, nil, ErrDigest, ""},
		"type":                  {Options{}, layer(t, ent{name: "x", kind: 'Z'}), ErrBadHeader, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			testutil.NoLeaks(t)
			c.o.Limits.Parallel = 1 // the limits of an image are shared by its layers: which one meets them must not vary
			s := openStore(t, c.o)
			b := plain(c.data)
			if c.data == nil {
				b = blob{layer(t, file("x", "y")), []byte("something else")}
			} else if sniff(c.data) == gzipped && name == "gzip bomb" {
				r, _ := gzip.NewReader(bytes.NewReader(c.data))
				b.plain, _ = io.ReadAll(r)
			}
			good := layer(t, file("good", "good"))
			img := putImage(t, s, "hostile", plain(good), b)
			before := listing(t, s)
			_, err := s.Unpack(context.Background(), "hostile", UnpackOptions{})
			var e *Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if c.ent != "" && e.Entry != c.ent {
				t.Errorf("entry %q, want %q: %v", e.Entry, c.ent, err)
			}
			m, _ := s.manifest(img.Descriptor)
			if e.Layer != m.Layers[1].Digest {
				t.Errorf("layer %s, want %s", e.Layer, m.Layers[1].Digest)
			}
			after := listing(t, s)
			maps.DeleteFunc(after, func(p string, _ int64) bool { return strings.Contains(p, "/"+dirLayers+"/"+digestOf(good)) }) // which is good
			if !maps.Equal(before, after) {
				t.Errorf("the store was\n%v\nand is\n%v", before, after)
			}
		})
	}
}

// rawNamed is an archive in the old format, which takes any name.
func rawNamed(t *testing.T, name string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

// sizedLink is a symbolic link that claims to have content.
func sizedLink(t *testing.T) []byte {
	data := layer(t, link("x", "y").with(func(h *tar.Header) { h.Format = tar.FormatUSTAR }))
	copy(data[124:], "00000000777\x00")
	return fixSum(data)
}

// fixSum writes the checksum of the first header.
func fixSum(data []byte) []byte {
	copy(data[148:156], "        ")
	sum := 0
	for _, c := range data[:512] {
		sum += int(c)
	}
	copy(data[148:], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

// sparseLayer has a sparse file of which nothing but its size is there.
func sparseLayer(t *testing.T, size int64) []byte {
	data := layer(t, file("hole", "").with(func(h *tar.Header) { h.Format = tar.FormatGNU }))
	data[156] = tar.TypeGNUSparse
	copy(data[386:], binaryNumber(size)) // one empty piece, at the end
	copy(data[398:], fmt.Sprintf("%011o\x00", 0))
	copy(data[483:], binaryNumber(size))
	return fixSum(data)
}

// binaryNumber is how GNU tar writes numbers that are too large for octal digits.
func binaryNumber(n int64) []byte {
	b := make([]byte, 12)
	b[0] = 0x80
	for i := 11; n > 0; i, n = i-1, n>>8 {
		b[i] = byte(n)
	}
	return b
}

func randomLayer(t *testing.T, n int) []byte {
	data := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range data {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		data[i] = byte(x)
	}
	return layer(t, file("x", string(data)))
}

func digestOf(data []byte) string { return string(sha256Hex(data)) }

// A link that an earlier entry left is never written through to the outside, not by files, directories, links, devices, modes
// nor owners (CVE-2021-32760, CVE-2021-29136 and their kin).
func TestNothingOutside(t *testing.T) {
	out := t.TempDir()
	victim := filepath.Join(out, "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := lstat(t, victim)
	up := strings.Repeat("../", 30)
	s := openStore(t, Options{})
	d := unpackOne(t, s, plain(layer(t,
		link("abs", out), link("rel", up+out[1:]), link("v1", victim), link("v2", up+victim[1:]), link("pr", "/proc/self/root"), link("fd", "/proc/self/cwd"),
		file("abs/file", "x"), file("rel/file2", "x"), dir("abs/dir"), dir("rel/dir2"), link("abs/link", "/"), file("v1", "x"), dir("v2"),
		file("pr"+out+"/p", "x"), file("fd/x", "x"), ent{name: "abs/fifo", kind: tar.TypeFifo}, hard("abs/hard", "abs/file"), file("rel/.wh.victim", ""),
		dir("abs").with(func(h *tar.Header) { h.Mode = 0o777 }), dir("rel/victim").with(func(h *tar.Header) { h.Mode = 0o777 }),
	)))
	if after := lstat(t, victim); *after != *before {
		t.Errorf("the victim was %+v and is %+v", before, after)
	}
	if names, _ := os.ReadDir(out); len(names) != 1 {
		t.Errorf("outside: %v", names)
	}
	if got, err := os.ReadFile(filepath.Join(d, out, "file2")); err != nil || string(got) != "x" {
		t.Errorf("inside: %q, %v", got, err)
	}
}

// What a loop of links leads to is an error, not a hang.
func TestLinkLoop(t *testing.T) {
	s := openStore(t, Options{})
	putImage(t, s, "loop", plain(layer(t, link("a", "b"), link("b", "a"), file("a/x", ""))))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.Unpack(ctx, "loop", UnpackOptions{}); err == nil || ctx.Err() != nil {
		t.Errorf("%v", err)
	}
}
