package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"
)

// lender lends what it has in pieces of a few bytes less than a block, so that nothing is whole.
type lender struct{ data []byte }

func (l *lender) next(most int64) ([]byte, error) {
	if len(l.data) == 0 {
		return nil, io.EOF
	}
	n := min(most, int64(len(l.data)), 500)
	p := l.data[:n]
	l.data = l.data[n:]
	return p, nil
}

func (l *lender) Read(p []byte) (int, error) {
	lent, err := l.next(int64(len(p)))
	return copy(p, lent), err
}

// archives are written as those are that layers come from.
func archives(t testing.TB) map[string][]byte {
	long := strings.Repeat("d/", 80) + "f"
	at := time.Unix(1_700_000_000, 123_456_789)
	plain := func(f tar.Format, hs ...*tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range hs {
			h.Format = f
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	list := func(name string) []*tar.Header {
		return []*tar.Header{{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o1755, ModTime: at.Truncate(time.Second)}, {Name: name, Typeflag: tar.TypeReg, Size: 1025, Mode: 0o644, Uid: 7, Gid: 8},
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: name}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "l"}, {Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
			{Name: "m", Typeflag: tar.TypeSymlink, Linkname: name}}
	}
	timed := list(long)
	timed[1].AccessTime, timed[1].ChangeTime, timed[1].ModTime = at, at, at.Add(-time.Hour)
	timed[1].PAXRecords = map[string]string{"SCHILY.xattr.user.a": "b\x00=\n", "SCHILY.xattr.security.capability": "\x01"}
	timed[2].ModTime = time.Unix(-5, 5)
	timed[3].Uid = 1 << 22
	sparse := plain(tar.FormatPAX, &tar.Header{Name: "s", Typeflag: tar.TypeReg, Size: 512, PAXRecords: map[string]string{"comment": "c"}}, &tar.Header{Name: "t", Typeflag: tar.TypeReg, Size: 3})
	return map[string][]byte{"ustar": plain(tar.FormatUSTAR, list("f")...), "prefix": plain(tar.FormatUSTAR, list(strings.Repeat("d/", 60) + "f")[:2]...), "gnu": plain(tar.FormatGNU, list(long)...),
		"pax": plain(tar.FormatPAX, timed...), "global": append(plain(tar.FormatPAX, &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "no"}})[:1024], plain(tar.FormatUSTAR, list("f")...)...),
		"comment": sparse, "nothing": nil, "half": sparse[:700], "no end": plain(tar.FormatUSTAR, list("f")...)[:2*512+1025], "holes": holes(t)}
}

// holes has a file of GNU's format 1.0 with two pieces, and one after it. Package archive/tar does not write its records, so they take the place of a
// comment.
func holes(t testing.TB) []byte {
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "holes") + record("GNU.sparse.realsize", "4608")
	comment := strings.Repeat("c", len(records)-len("10 comment=\n"))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := make([]byte, 512+1024)
	copy(content, "2\n0\n512\n4096\n512\n")
	for _, h := range []*tar.Header{{Name: "s", Typeflag: tar.TypeReg, Size: int64(len(content)), Format: tar.FormatPAX, PAXRecords: map[string]string{"comment": comment}},
		{Name: "after", Typeflag: tar.TypeReg}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before := []byte(record("comment", comment))
	if !bytes.Contains(b.Bytes(), before) || len(before) != len(records) {
		t.Fatalf("%d bytes of records for %d", len(records), len(before))
	}
	return bytes.Replace(b.Bytes(), before, []byte(records), 1)
}

// record is one of an extended header, with a length of two digits.
func record(k, v string) string { return strconv.Itoa(len(k)+len(v)+5) + " " + k + "=" + v + "\n" }

// sameAsTar reads an archive in both ways.
func sameAsTar(t *testing.T, data []byte, contents bool) {
	want, got := tar.NewReader(bytes.NewReader(data)), newEntries(&lender{data}, make([]byte, 700))
	for range 1000 {
		hw, errw := want.Next()
		hg, errg := got.Next()
		if (errw == nil) != (errg == nil) || errw != nil && errw.Error() != errg.Error() {
			t.Fatalf("archive/tar: %v; here: %v", errw, errg)
		}
		if errw != nil {
			return
		}
		if hg.Name != hw.Name || hg.Linkname != hw.Linkname || hg.Typeflag != hw.Typeflag || hg.Mode != hw.Mode || hg.Uid != hw.Uid || hg.Gid != hw.Gid || hg.Size != hw.Size ||
			!hg.ModTime.Equal(hw.ModTime) || !hg.AccessTime.Equal(hw.AccessTime) || hg.Devmajor != hw.Devmajor || hg.Devminor != hw.Devminor ||
			!maps.Equal(xattrRecords(hg), xattrRecords(hw)) || isSparse(hg) != isSparse(hw) {
			t.Fatalf("archive/tar: %+v\nhere: %+v", hw, hg)
		}
		if contents && hw.Size < 1<<20 && contentOf(hw) > 0 {
			sameContent(t, want, got, hw.Size)
		}
	}
}

func xattrRecords(h *tar.Header) map[string]string {
	out := maps.Clone(h.PAXRecords)
	maps.DeleteFunc(out, func(k, _ string) bool { return !strings.HasPrefix(k, xattrRecord) })
	if out == nil {
		out = map[string]string{}
	}
	return out
}

func sameContent(t *testing.T, want io.Reader, got *entries, size int64) {
	all := make([]byte, size)
	n, errw := fill(want, all)
	if all = all[:n]; int64(n) == size {
		errw = nil // as for writeFile, which does not ask for more
	}
	var mine []byte
	var errg error
	for int64(len(mine)) < size && errg == nil {
		var p []byte
		if p, errg = got.next(size - int64(len(mine))); errg == nil && len(p) == 0 {
			t.Fatal("a piece of nothing")
		}
		mine = append(mine, p...)
	}
	if !bytes.Equal(all, mine) || (errw == nil) != (errg == nil) || errw != nil && errw.Error() != errg.Error() {
		t.Fatalf("archive/tar: %d bytes, %v; here: %d bytes, %v", len(all), errw, len(mine), errg)
	}
}

// The headers that are read here say what package archive/tar says.
func TestEntries(t *testing.T) {
	for name, data := range archives(t) {
		t.Run(name, func(t *testing.T) {
			sameAsTar(t, data, true)
			sameAsTar(t, data, false)
		})
	}
}

// Most entries never reach package archive/tar.
func TestEntriesFast(t *testing.T) {
	for name, data := range archives(t) {
		e := newEntries(&lender{data}, nil)
		hdr, err := e.fast()
		if want := name == "ustar" || name == "gnu" || name == "pax" || name == "prefix" || name == "no end"; (hdr != nil) != want || err != nil {
			t.Errorf("%s: %v, %v", name, hdr, err)
		}
	}
}

func FuzzEntries(f *testing.F) {
	for _, data := range archives(f) {
		f.Add(data, true)
		f.Add(data, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, contents bool) {
		sameAsTar(t, data, contents)
		sameAsTar(t, mended(data), contents)
	})
}

// mended has the right checksum in each block that may be a header.
func mended(data []byte) []byte {
	out := bytes.Clone(data)
	for b := out; len(b) >= tarBlock; b = b[tarBlock:] {
		if bytes.HasPrefix(b[257:], []byte("ustar")) {
			sum, _ := sums(b)
			copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
		}
	}
	return out
}
