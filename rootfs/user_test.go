package rootfs

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const testPasswd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
# comment
+::::::
broken
1000:x:0:0:numeric name:/root:/bin/sh
4294967296:x:0:0:too large a name:/root:/bin/sh
app:x:1000:1000:App:/home/app:/bin/bash
app:x:0:0:second:/root:/bin/sh
neg:x:-1:-1::/:/bin/sh
big:x:4294967295:0::/:/bin/sh
wrap:x:4294967296:0::/:/bin/sh
short:x:7:8
tab:x:9:9::/home/a	b:/bin/sh
rel:x:10:10::home/rel:/bin/sh
dots:x:11:11::/home/../root/./:/bin/sh
last:x:4294967294:4294967294::/:`

const testGroup = `root:x:0:
daemon:x:1:app
app:x:1000:
audio:x:29:app,root
5000:x:0:
video:x:44: root , app
dup:x:29:app
bad:x:x:app
nobody:x:4294967294:`

func TestUserSpec(t *testing.T) {
	for _, c := range []struct {
		spec string
		want User
		err  error
	}{
		{spec: "0", want: User{Name: "root", Groups: []uint32{0, 29, 44}, Home: "/root", Shell: "/bin/sh"}},
		{spec: "root", want: User{Name: "root", Groups: []uint32{0, 29, 44}, Home: "/root", Shell: "/bin/sh"}},
		{spec: "1000", want: User{Name: "app", UID: 1000, GID: 1000, Groups: []uint32{1, 29, 44, 1000}, Home: "/home/app", Shell: "/bin/bash"}},
		{spec: "app", want: User{Name: "app", UID: 1000, GID: 1000, Groups: []uint32{1, 29, 44, 1000}, Home: "/home/app", Shell: "/bin/bash"}},
		{spec: "app:audio", want: User{Name: "app", UID: 1000, GID: 29, Groups: []uint32{29}, Home: "/home/app", Shell: "/bin/bash"}},
		{spec: "app:0", want: User{Name: "app", UID: 1000, Groups: []uint32{0}, Home: "/home/app", Shell: "/bin/bash"}},
		{spec: "1000:5000", want: User{Name: "app", UID: 1000, GID: 5000, Groups: []uint32{5000}, Home: "/home/app", Shell: "/bin/bash"}},
		{spec: "4242", want: User{UID: 4242, Groups: []uint32{0}, Home: "/"}},
		{spec: "4242:audio", want: User{UID: 4242, GID: 29, Groups: []uint32{29}, Home: "/"}},
		{spec: "007", want: User{Name: "short", UID: 7, GID: 8, Groups: []uint32{8}, Home: "/"}},
		{spec: "9", want: User{Name: "tab", UID: 9, GID: 9, Groups: []uint32{9}, Home: "/", Shell: "/bin/sh"}},
		{spec: "rel", want: User{Name: "rel", UID: 10, GID: 10, Groups: []uint32{10}, Home: "/", Shell: "/bin/sh"}},
		{spec: "dots", want: User{Name: "dots", UID: 11, GID: 11, Groups: []uint32{11}, Home: "/root", Shell: "/bin/sh"}},
		{spec: "4294967294", want: User{Name: "last", UID: maxID, GID: maxID, Groups: []uint32{maxID}, Home: "/"}},
		{spec: "4294967295", err: ErrBadUser},
		{spec: "4294967296", err: ErrBadUser},
		{spec: "18446744073709551616", err: ErrBadUser},
		{spec: "app:4294967295", err: ErrBadUser},
		{spec: "", err: ErrBadUser},
		{spec: ":", err: ErrBadUser},
		{spec: ":0", err: ErrBadUser},
		{spec: "0:", err: ErrBadUser},
		{spec: "0:0:0", err: ErrBadUser},
		{spec: "-1", err: ErrBadUser},
		{spec: "+0", err: ErrBadUser},
		{spec: "app\nroot", err: ErrBadUser},
		{spec: " 0", err: ErrBadUser},
		{spec: "0x0", err: ErrUnknownUser},
		{spec: "nobody", err: ErrUnknownUser},
		{spec: "neg", err: ErrUnknownUser},
		{spec: "big", err: ErrUnknownUser},
		{spec: "wrap", err: ErrUnknownUser},
		{spec: "app:nogroup", err: ErrUnknownGroup},
		{spec: "app:bad", err: ErrUnknownGroup},
	} {
		want, err := parseUserSpec(c.spec)
		if bad := CheckUser(c.spec); errors.Is(bad, ErrBadUser) != (c.err == ErrBadUser) {
			t.Errorf("%q: %v", c.spec, bad)
		}
		var got User
		if err == nil {
			got, err = want.resolve(strings.NewReader(testPasswd), strings.NewReader(testGroup))
		}
		if !errors.Is(err, c.err) || err == nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, %v; want %+v, %v", c.spec, got, err, c.want, c.err)
		}
	}
}

func FuzzUser(f *testing.F) {
	f.Add("app:audio", testPasswd, testGroup)
	f.Add("1000", testPasswd, testGroup)
	f.Add("0:0", "", ":::\n")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		want, err := parseUserSpec(spec)
		if err != nil {
			return
		}
		u, err := want.resolve(strings.NewReader(passwd), strings.NewReader(group))
		if err != nil {
			return
		}
		if want.user.name == "" && u.UID != want.user.num {
			t.Fatalf("number %d became %d", want.user.num, u.UID)
		}
		if u.UID > maxID || u.GID > maxID || !slices.Contains(u.Groups, u.GID) || !slices.IsSorted(u.Groups) {
			t.Fatalf("bad ids: %+v", u)
		}
		if u.Home == "" || u.Home[0] != '/' || strings.ContainsAny(u.Home, ":\n\r\x00\x1b") {
			t.Fatalf("bad home %q", u.Home)
		}
	})
}
