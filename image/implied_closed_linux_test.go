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
