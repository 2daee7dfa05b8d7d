package linux

import "testing"

func TestParseRelease(t *testing.T) {
	for in, want := range map[string]Release{
		"6.1.0-56-amd64": {6, 1}, "5.4": {5, 4}, "6.18.44-fc-v595": {6, 18}, "4.19-rc1": {4, 19}, "7.1+": {7, 1},
	} {
		if got, err := ParseRelease(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "6", "6.", ".1", "x.1", "6.x", "-6.1", "6.-1", "99999999999.1", "6.99999999999"} {
		if got, err := ParseRelease(in); err == nil {
			t.Errorf("%q: got %v", in, got)
		}
	}
}

func TestAtLeast(t *testing.T) {
	r := Release{6, 9}
	for _, c := range []struct {
		major, minor int
		want         bool
	}{{6, 9, true}, {6, 10, false}, {5, 19, true}, {7, 0, false}, {6, 0, true}} {
		if got := r.AtLeast(c.major, c.minor); got != c.want {
			t.Errorf("%v at least %d.%d: got %v", r, c.major, c.minor, got)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add("6.1.0-56-amd64")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRelease(s)
		if err != nil {
			return
		}
		if again, err := ParseRelease(r.String()); err != nil || again != r {
			t.Fatalf("%q: %v, then %v, %v", s, r, again, err)
		}
	})
}
