package rootfs

import (
	"slices"
	"testing"
)

func TestWriting(t *testing.T) {
	for _, c := range []struct {
		options []string
		want    Writing
	}{
		{[]string{"sync"}, Writing{Sync: true}},
		{[]string{"sync", "async", "silent", "loud", "iversion", "noiversion"}, Writing{}},
		{[]string{"dirsync", "lazytime"}, Writing{DirSync: true, LazyTime: true}},
		{[]string{"lazytime", "nolazytime"}, Writing{}},
	} {
		m, err := ParseMount("tmpfs", "tmpfs", "/a", c.options)
		if err != nil || m.Writing != c.want {
			t.Errorf("%q: %+v, %v", c.options, m.Writing, err)
		}
		_, _, options, _ := m.Format()
		for _, o := range c.want.options() {
			if !slices.Contains(options, o) {
				t.Errorf("%q: written as %q", c.options, options)
			}
		}
	}
	if _, err := ParseMount("bind", "/", "/a", []string{"bind", "sync"}); err == nil {
		t.Error("a bind mount has taken an option of the whole file system")
	}
}
