package image

import (
	"archive/tar"
	"context"
	"testing"

	"github.com/caisson-go/caisson/namespaces"
)

// A file is its owner's by whichever of its names is left, also when an entry took the place of the one that made it or of a link on the way there.
func TestMappedOwnersOfHardLinks(t *testing.T) {
	own := ownedBy(7, 8, 0o4755)
	for what, ents := range map[string][]ent{
		"the first name replaced":   {file("a", "x").with(own), hard("b", "a"), file("a", "y")},
		"the first name removed":    {file("d/a", "x").with(own), hard("b", "d/a"), file("d", ""), file("a", "y")},
		"the link replaced":         {file("b", "x").with(own), hard("a", "b"), file("a", "y")},
		"one of several":            {file("c", "x").with(own), hard("a", "c"), hard("b", "a"), hard("c", "b"), file("a", "y"), file("c", "")},
		"the same link again":       {file("a", "x").with(own), hard("b", "a"), hard("b", "a"), file("a", "y")},
		"a link on the way":         {dir("d"), link("l", "d"), file("l/b", "x").with(own), file("l", ""), hard("b", "d/b"), file("d", ""), file("a", "y")},
		"a link on the way, a name": {dir("d"), link("l", "d"), file("l/x", "x").with(own), file("l", ""), hard("b", "d/x"), file("b", ""), hard("b", "d/x"), file("a", "y")},
		"a link to the root":        {link("l", "/"), file("l/b", "x").with(own), file("l", ""), file("a", "y")},
	} {
		t.Run(what, func(t *testing.T) {
			s := openStore(t, Options{Policy: Policy{Owners: OwnersMapped}})
			putImage(t, s, "a", plain(layer(t, ents...)))
			u := must[*Unpacked](t)(s.Unpack(context.Background(), "a", UnpackOptions{}))
			mappedOwner(t, s, u.Dirs[0]+"/b", 7, 8, 0o4755)
			mappedOwner(t, s, u.Dirs[0]+"/a", 0, 0, 0o644)
		})
	}
}

// Until a file is given away it has none of the bits with which it would run as the caller, so that one that is not found then has none either.
func TestMappedOwnersSetIDLast(t *testing.T) {
	d := t.TempDir()
	l := Limits{}.withDefaults()
	ids := []namespaces.IDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	a := &applier{ctx: context.Background(), t: newTree(context.Background(), must[int](t)(openTreeDir(d))), limits: l, budget: &budget{limits: l}, mark: &mark{}, metas: map[string]dirMeta{},
		giver: &giver{maps: namespaces.IDMaps{UID: ids, GID: ids}}}
	defer a.t.close()
	for id, want := range map[int]uint32{7: 0o755, 0: 0o6755} {
		if err := a.walker().entry(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o6755, Uid: id, Gid: id}, nil); err != nil {
			t.Fatal(err)
		}
		if st := lstat(t, d+"/a"); st.Mode&0o7777 != want {
			t.Errorf("owner %d: mode %o, want %o", id, st.Mode&0o7777, want)
		}
	}
}
