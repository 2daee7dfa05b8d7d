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
