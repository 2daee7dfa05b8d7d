package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
)

// maxRounds bounds how often what is below is looked up: a link leads to further directories that no entry stands for.
const maxRounds = 4

// Some builders write a layer with files and without the directories they are in. Such a directory has to be made, and in an overlay it is then
// the one whose owner and mode are seen, in place of the one of a lower layer: /tmp would lose its 1777. So these directories are given what
// the layer below has, and a layer that needs that is unpacked once more, under a name of its own, since what is below it
// depends on the image. Where a layer below has a symbolic link in this place (/lib of a merged-usr system), the link is made here too, and the files
// go where it leads.

// inherited is what an implied directory gets from below.
type inherited struct {
	Mode     uint32 `json:"mode"`
	UID, GID uint32
	Sec      int64 `json:"sec"`
	Nsec     int64 `json:"nsec"`
	// Link is the target of a symbolic link; the other fields are empty then.
	Link string `json:"link,omitempty"`
}

// plainDir is what an implied directory has anyway, but for its time.
func (d inherited) plainDir(owners bool) bool {
	return d.Link == "" && d.Mode == 0o755 && (!owners || d.UID == 0 && d.GID == 0)
}

// below answers what the layers of an image have in the place of an implied directory. Images with many small layers imply the same
// directories again and again, so each layer is asked for a path once.
type below struct {
	marks []*mark
	dirs  []string // the directories of the layers, the lowest first
	gifts *giver
	known map[string]belowAnswer
	// closed counts answers that the caller may not have.
	closed int64
}

// belowAnswer is what the layers below one say; dir is nil where they have nothing to give.
type belowAnswer struct {
	layer int
	dir   *inherited
}

// maxKnown bounds the answers that are remembered.
const maxKnown = 1 << 16

// inheritance finds what the implied directories of layer i get from the layers below it, and is nil if that makes no difference.
func (b *below) inheritance(ctx context.Context, i int, owners bool) (map[string]inherited, error) {
	answers, err := b.ask(ctx, i, b.marks[i].Implied)
	if err != nil {
		return nil, err
	}
	var out map[string]inherited
	for path, d := range answers {
		if d.plainDir(owners) {
			continue
		}
		if out == nil {
			out = map[string]inherited{}
		}
		out[path] = *d
	}
	return out, nil
}

// ask looks paths, which are sorted, up in the layers below i, the nearest first.
func (b *below) ask(ctx context.Context, i int, paths []string) (map[string]*inherited, error) {
	out := map[string]*inherited{}
	answer := func(path string, d *inherited) {
		if d != nil {
			out[path] = d
		}
		if _, ok := b.known[path]; ok || len(b.known) < maxKnown {
			b.known[path] = belowAnswer{i, d}
		}
	}
	for j := i - 1; j >= 0 && len(paths) > 0; j-- {
		var err error
		if paths, err = b.askLayer(ctx, j, paths, answer); err != nil {
			return nil, err
		}
	}
	for _, path := range paths {
		answer(path, nil)
	}
	return out, nil
}

// askLayer asks one layer, and returns the paths that the ones below it are to be asked for.
func (b *below) askLayer(ctx context.Context, j int, paths []string, answer func(string, *inherited)) ([]string, error) {
	root := &layerRoot{path: b.dirs[j], fd: -1}
	defer root.close()
	var further []string
	missing := "/" // which no path begins with
	for _, path := range paths {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if k, ok := b.known[path]; ok && k.layer == j+1 {
			answer(path, k.dir)
			continue
		}
		d, err := b.look(j, root, path, missing)
		switch {
		case errors.Is(err, syscall.EACCES): // below a directory of another id, or without the right to search
			b.closed++
			answer(path, nil)
		case err == errNoDirectory:
			answer(path, nil)
		case notExist(err) && b.marks[j].Hides:
			answer(path, nil)
		case notExist(err):
			further = append(further, path)
			if err != errImplied {
				missing = path + "/"
			}
		case err != nil:
			return nil, err
		default:
			answer(path, d)
		}
	}
	return further, nil
}

// look looks a path up in one layer. Whatever else than a directory or a link is there is errNoDirectory and ends the search: it is hidden, or reached
// through a link, and not this one. missing is the beginning of paths that are known not to be there.
func (b *below) look(j int, root *layerRoot, path, missing string) (*inherited, error) {
	switch {
	case strings.HasPrefix(path, missing):
		return nil, fs.ErrNotExist
	case !b.marks[j].stands(path):
		return nil, errImplied
	}
	d, err := root.stat(path)
	if err == nil {
		b.gifts.inside(d)
	}
	return d, err
}

// stands says that a directory of a layer is there for its own sake, or has what is below it.
func (m *mark) stands(path string) bool {
	if _, ok := m.inherited[path]; ok {
		return true
	}
	_, implied := slices.BinarySearch(m.Implied, path)
	return !implied
}

// Both Are fs.ErrNotExist.
var (
	errNoDirectory error = &noDirectory{"not a directory"}        // something else is in the way
	errImplied     error = &noDirectory{"no entry stands for it"} // and it has nothing from below
)

type noDirectory struct{ text string }

func (e *noDirectory) Error() string      { return e.text }
func (*noDirectory) Is(target error) bool { return target == fs.ErrNotExist }

// variantKey names a layer whose implied directories have what they get from below.
func variantKey(key string, from map[string]inherited) (string, error) {
	data, err := json.Marshal(from) // sorted by path
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return key + "-in" + hex.EncodeToString(sum[:8]), nil
}

// inherit replaces the layers of an image that have implied directories by variants that fit it.
func (s *Store) inherit(ctx context.Context, info *Info, marks []*mark, o UnpackOptions, gifts *giver, unpack func(i int, key string, from map[string]inherited) (*mark, error)) ([]string, error) {
	keys := make([]string, len(marks))
	dirs := make([]string, len(marks))
	b := &below{marks: marks, dirs: dirs, gifts: gifts, known: map[string]belowAnswer{}}
	for i := range marks {
		keys[i] = s.layerKey(digest.Digest(info.Config.DiffIDs[i]), o)
		dirs[i] = s.layerDir(keys[i])
		if len(marks[i].Implied) == 0 {
			continue
		}
		base, from := keys[i], map[string]inherited(nil)
		before := b.closed
		for range maxRounds {
			next, err := b.inheritance(ctx, i, isPrivileged() || gifts != nil || o.EROFS)
			if err != nil {
				return nil, err
			}
			if maps.Equal(next, from) {
				break
			}
			from = next
			if keys[i], err = variantKey(base, from); err != nil {
				return nil, err
			}
			if marks[i], err = unpack(i, keys[i], from); err != nil {
				return nil, err
			}
			dirs[i] = s.layerDir(keys[i])
		}
		m := *marks[i] // the same mark may stand for another occurrence of the layer
		m.inherited, m.closed = from, b.closed-before
		marks[i] = &m
	}
	return keys, nil
}

// baseKey is the diff ID that the name of an unpacked layer begins with.
func baseKey(key string) string {
	id, _, _ := strings.Cut(key, "-")
	return id
}
