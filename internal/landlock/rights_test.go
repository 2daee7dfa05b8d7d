package landlock

import "testing"

func TestHandled(t *testing.T) {
	var before Rights
	for abi := range Newest + 3 {
		r := Handled(abi)
		if r.And(before) != before {
			t.Errorf("ABI %d: %v lacks something of %v", abi, r, before)
		}
		if want := min(abi, Newest); r.Needs() != want {
			t.Errorf("ABI %d: needs %d", abi, r.Needs())
		}
		before = r
	}
	for abi, want := range map[int][3]uint64{1: {1<<13 - 1}, 2: {1<<14 - 1}, 3: {1<<15 - 1}, 4: {1<<15 - 1, 3}, 5: {1<<16 - 1, 3}, 6: {1<<16 - 1, 3, 3}} {
		if r := Handled(abi); [3]uint64{r.Files, r.Net, r.Scope} != want {
			t.Errorf("ABI %d: %+v, want %v", abi, r, want)
		}
	}
}

func TestAttr(t *testing.T) {
	for _, c := range []struct {
		r    Rights
		size int
		text string
	}{
		{Rights{Files: ReadFile}, 8, "{handled_access_fs=LANDLOCK_ACCESS_FS_READ_FILE}"},
		{Rights{Net: BindTCP}, 16, "{handled_access_fs=0, handled_access_net=LANDLOCK_ACCESS_NET_BIND_TCP}"},
		{Rights{Scope: ScopeSignal}, 24, "{handled_access_fs=0, handled_access_net=0, scoped=LANDLOCK_SCOPE_SIGNAL}"},
	} {
		if got := c.r.Attr(); len(got) != c.size || c.r.String() != c.text {
			t.Errorf("%d bytes, %v", len(got), c.r)
		}
	}
}
