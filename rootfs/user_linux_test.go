package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLookupUserFiles(t *testing.T) {
	long := strings.Repeat("a", maxUserLine+1)
	for _, c := range []struct {
		name, spec    string
		passwd, group func(t testing.TB, path string)
		err           error
	}{
		{name: "no files, number", spec: "12:13"},
		{name: "no files, name", spec: "root", err: ErrUnknownUser},
		{name: "no files, group", spec: "0:wheel", err: ErrUnknownGroup},
		{name: "passwd a directory", spec: "0", passwd: mkdir, err: ErrNotRegular},
		{name: "group a fifo", spec: "0", group: mkfifo, err: ErrNotRegular},
		{name: "passwd too large", spec: "0", passwd: sparse(maxUserDB + 1), err: ErrTooLarge},
		{name: "line too long", spec: "0", passwd: write(long), err: ErrTooLarge},
		{name: "group too large", spec: "root", passwd: write(testPasswd), group: sparse(1 << 40), err: ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, r *Root) {
				etc := filepath.Join(r.Name(), "etc")
				mkdir(t, etc)
				if c.passwd != nil {
					c.passwd(t, filepath.Join(etc, "passwd"))
				}
				if c.group != nil {
					c.group(t, filepath.Join(etc, "group"))
				}
				_, err := LookupUser(r, c.spec)
				var ue *UserError
				if !errors.Is(err, c.err) || err != nil && !errors.As(err, &ue) {
					t.Errorf("got %v, want %v", err, c.err)
				}
			})
		})
	}
}

// A passwd that is a link out of the root is looked for inside it.
func TestLookupUserLink(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	write("evil:x:0:0::/:/bin/sh\n")(t, outside)
	eachWay(t, func(t *testing.T, r *Root) {
		mkdir(t, filepath.Join(r.Name(), "etc"))
		if err := os.Symlink(outside, filepath.Join(r.Name(), "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		if _, err := LookupUser(r, "evil"); !errors.Is(err, ErrUnknownUser) {
			t.Errorf("got %v, want ErrUnknownUser", err)
		}
	})
}

func TestLookupGroups(t *testing.T) {
	eachWay(t, func(t *testing.T, r *Root) {
		mkdir(t, filepath.Join(r.Name(), "etc"))
		write(testGroup)(t, filepath.Join(r.Name(), "etc/group"))
		got, err := LookupGroups(r, "video", "29", "audio", "7")
		if err != nil || !slices.Equal(got, []uint32{7, 29, 44}) {
			t.Errorf("got %v, %v", got, err)
		}
		_, err = LookupGroups(r, "wheel", "-1", "audio")
		if !errors.Is(err, ErrUnknownGroup) || !errors.Is(err, ErrBadUser) {
			t.Errorf("got %v, want both faults", err)
		}
	})
}
