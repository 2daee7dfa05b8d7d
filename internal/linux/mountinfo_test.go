package linux

import (
	"strings"
	"testing"
)

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"":              "",
		"/a/b":          "/a/b",
		`/a\040b\011`:   "/a b\t",
		`\134\012`:      "\\\n",
		`/a\04`:         `/a\04`, // cut
		`/a\08x`:        `/a\08x`,
		`\377`:          "\xff",
		`/tail\`:        `/tail\`,
		`/two\040\040x`: "/two  x",
	} {
		if got := Unescape(in); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
}

func FuzzUnescape(f *testing.F) {
	f.Add(`/a\040b`)
	f.Fuzz(func(t *testing.T, s string) {
		got := Unescape(s)
		if len(got) > len(s) || !strings.Contains(s, `\`) && got != s {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
