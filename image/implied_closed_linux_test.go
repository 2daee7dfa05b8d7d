package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// A directory without an entry, below one of a lower layer that is closed to the caller, has the mode that such directories have, and a note says so.
func TestImpliedBelowClosed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy OwnerPolicy
		mode   int64
	}{
		{"of another id", OwnersMapped, 0o700},
		{"without the right to search", OwnersCaller, 0o600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t, Options{Policy: Policy{Owners: tt.policy}})
			own := func(h *tar.Header) { h.Uid, h.Gid, h.Mode = 1000, 1000, tt.mode }
			base := layer(t, dir("home"), dir("home/u").with(own), dir("home/u/app").with(own))
			top := layer(t, file("home/u/app/x", "").with(own))
			putImage(t, s, "a", plain(base), plain(top))
			for range 2 { // it is unpacked, then it is there
				u := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{}))
				closed := os.Geteuid() != 0 && (tt.policy == OwnersCaller || !s.maps.IsZero())
				if got := strings.Contains(strings.Join(u.Notes, " "), "1 directories that layers have no entries for"); got != closed {
					t.Errorf("closed %v, notes %q", closed, u.Notes)
				}
			}
		})
	}
}

// A layer whose mark could not be read again is refused, instead of being unpacked anew whenever it is needed.
func TestImpliedNamesBounded(t *testing.T) {
	s := openStore(t, Options{})
	var ents []ent
	for i := range 300 {
		ents = append(ents, file(strings.Repeat("/"+strings.Repeat("<", 251)+fmt.Sprintf("%03d", i), 15)+"/x", ""))
	}
	img := plain(layer(t, ents...))
	putImage(t, s, "a", img)
	_, err := s.Unpack(context.Background(), "a", UnpackOptions{})
	if le := (*LimitError)(nil); !errors.As(err, &le) || le.Limit != "Memory" {
		t.Errorf("%v", err)
	}
}

// The end of the context ends the search for what directories without an entry have below, and what is done when all entries are written.
func TestCancelledAfterEntries(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	d := t.TempDir()
	b := &below{marks: []*mark{{}, {Implied: []string{"a"}}}, dirs: []string{d, d}, known: map[string]belowAnswer{}}
	if _, err := b.inheritance(ctx, 1, true); err != cause {
		t.Errorf("looking below: %v", err)
	}
	a := &applier{ctx: ctx, metas: map[string]dirMeta{"a": {}}, gifts: map[inode]gift{{}: {}}}
	if err := a.giveFiles(); err != cause {
		t.Errorf("giving files away: %v", err)
	}
	a.gifts = nil
	if err := a.finishDirs(); err != cause {
		t.Errorf("finishing directories: %v", err)
	}
}

// A directory with an entry stands for itself, also where a file was in between.
func TestImpliedReplacedTwice(t *testing.T) {
	ctx := context.Background()
	s := openStore(t, Options{})
	base := layer(t, dir("a").with(func(h *tar.Header) { h.Mode = 0o711 }))
	top := layer(t, file("a/x", ""), file("a", ""), dir("a").with(func(h *tar.Header) { h.Mode = 0o750 }))
	putImage(t, s, "a", plain(base), plain(top))
	u := must[*Unpacked](t)(s.Unpack(ctx, "a", UnpackOptions{}))
	m := must[*mark](t)(s.readMark(u.keys[0]))
	if len(m.Implied) != 0 {
		t.Errorf("implied: %q", m.Implied)
	}
	if st := lstat(t, u.Dirs[0]+"/a"); st.Mode&0o7777 != 0o750 {
		t.Errorf("mode %o", st.Mode)
	}
}

// Directories that were closed when a layer had too many to keep in mind are reached all the same, and closed in the end.
func TestClosedInBetween(t *testing.T) {
	was := maxMetaBytes
	maxMetaBytes = 4 << 10
	t.Cleanup(func() { maxMetaBytes = was })
	mode := func(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }
	base := layer(t, dir("shut"), dir("shut/implied").with(mode(0o711)))
	for _, tt := range []struct {
		name, opaque string
		end          []ent
	}{
		{"nothing more", "", nil},
		{"whiteout of a closed directory", "/shut/d", []ent{file("shut/.wh.d", "")}},
		{"whiteout of a read-only one", "/o", []ent{file(".wh.o", "")}},
		{"opaque", "/shut/d", []ent{file("shut/d/.wh..wh..opq", "")}},
		{"something in the way of an entry", "", []ent{file("f", ""), file("f", "")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ents := []ent{dir("shut"), dir("shut/d").with(mode(0)), file("shut/implied/f", ""), dir("o").with(mode(0o500)), dir("shut").with(mode(0))}
			for i := range 40 {
				ents = append(ents, dir(fmt.Sprint("more", i)))
			}
			s := openStore(t, Options{Policy: Policy{Owners: OwnersCaller}})
			putImage(t, s, "a", plain(base), plain(layer(t, append(ents, tt.end...)...)))
			d := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{})).Dirs[0]
			for name, want := range map[string]uint32{"shut": 0, "o": 0o500} {
				if got := lstat(t, d+"/"+name).Mode & 0o7777; got != want {
					t.Errorf("%q has mode %o, want %o", name, got, want)
				}
			}
			for _, name := range []string{"/shut", "/shut/d", "/o"} {
				if err := os.Chmod(d+name, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"/shut/d", "/o"} {
				if got := isOpaque(t, d+name); got != (name == tt.opaque) {
					t.Errorf("%s: opaque %v", name, got)
				}
			}
			if got := lstat(t, d+"/shut/implied").Mode & 0o7777; got != 0o711 {
				t.Errorf("the implied directory has mode %o", got)
			}
		})
	}
}
