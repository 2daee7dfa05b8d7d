package netdev

import (
	"errors"
	"testing"
)

func TestNames(t *testing.T) {
	for _, l := range []struct {
		name    string
		is, new bool
	}{
		{"eth0", true, true}, {"a", true, true}, {"exactly15bytes_", true, true}, {"...", true, true}, {"eth%d", true, true}, {"%d", true, true},
		{"", false, false}, {"sixteen_bytes_16", false, false}, {".", false, false}, {"..", false, false}, {"a/b", false, false},
		{"a:1", false, false}, {"a b", false, false}, {"a\x00", false, false}, {"a\xa0", false, false},
		{"50%", true, false}, {"%s", true, false}, {"%d%d", true, false}, {"%%d", true, false},
	} {
		for what, err := range map[string]error{"name": CheckName(l.name), "new name": CheckNewName(l.name)} {
			if ok := what == "name" && l.is || what == "new name" && l.new; (err == nil) != ok || err != nil && !errors.Is(err, ErrName) {
				t.Errorf("%s %q: %v", what, l.name, err)
			}
		}
	}
}
