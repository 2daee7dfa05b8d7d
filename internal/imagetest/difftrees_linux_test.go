package imagetest

import (
	"strings"
	"testing"

	"github.com/caisson-go/caisson/image"
)

// Two snapshots that are overlays, siblings or a fork and what it is one of, are compared without a container: the layer on top of the one
// is the other.
func TestDiffTreesOfSnapshots(t *testing.T) {
	noLeaks(t)
	ctx := testContext(t)
	s := newStore(t)
	t.Cleanup(func() { // overlayfs has closed a directory of each, which an ordinary user cannot just remove
		for _, name := range []string{"fork", "one", "two"} {
			if err := s.RemoveSnapshot(ctx, name); err != nil && !t.Failed() {
				t.Error(err)
			}
		}
	})
	o := image.SnapshotOptions{Method: image.MethodOverlay}
	one := must[*image.Snapshot](t)(s.NewSnapshot(ctx, "one", "box", o))
	two := must[*image.Snapshot](t)(s.NewSnapshot(ctx, "two", "box", o))
	run(t, one, "mkdir -p /d/deep && echo 1 >/d/deep/both && echo 1 >/d/one && rm /etc/group && mv /bin/wc /bin/words")
	run(t, two, "mkdir -p /d/deep && echo 2 >/d/deep/both && echo 2 >/two && ln /two /d/linked && rm -r /home && rm /bin/wc")
	if err := one.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	fork := must[*image.Snapshot](t)(one.Fork(ctx, "fork", o))
	run(t, fork, "rm -r /d/deep && mkdir /d/deep && echo 3 >/d/deep/new && echo 4 >/etc/group")
	const list = `find /bin /d /etc /home /tmp /two /var 2>/dev/null | sort; for f in /d/* /d/deep/* /etc/* /two; do [ ! -f $f ] || echo $f: $(stat -c '%h %a' $f) $(cat $f); done`
	for _, p := range [][2]*image.Snapshot{{one, two}, {two, one}, {two, fork}, {fork, one}, {one, fork}} {
		base, want := stackOf(t, p[0]), run(t, p[1], list)
		from := must[*image.Unpacked](t)(s.Unpack(ctx, "box", image.UnpackOptions{}))
		var box []image.Tree
		for _, d := range from.Dirs {
			box = append(box, image.Tree{Path: d})
		}
		name := p[0].Name() + "-" + p[1].Name()
		if _, err := s.Write(ctx, name, image.ImageSpec{Base: "box", Layers: []image.Layer{image.DiffTrees(box, base, image.TreeOptions{}),
			image.DiffTrees(base, stackOf(t, p[1]), image.TreeOptions{})}}); err != nil {
			t.Fatal(err)
		}
		c := container(t, s, name, list)
		if out, err := c.CombinedOutput(ctx); err != nil || strings.TrimSpace(string(out)) != strings.TrimSpace(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, out, want)
		}
	}
}

// stackOf are the directories of a snapshot.
func stackOf(t *testing.T, sn *image.Snapshot) []image.Tree {
	t.Helper()
	v := must[*image.SnapshotView](t)(sn.Open(testContext(t)))
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v.Trees()
}
