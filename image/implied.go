package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"slices"
	"strings"

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

// inheritance finds what the implied directories of layer i get from the layers below it, and is nil if that makes no difference. dirs are
// the directories of all layers, the lowest first.
func inheritance(marks []*mark, dirs []string, i int, owners bool) (map[string]inherited, error) {
	var out map[string]inherited
	for _, path := range marks[i].Implied {
		d, err := firstBelow(marks, dirs, i, path)
		if err != nil {
			return nil, err
		}
		if d == nil || d.plainDir(owners) {
			continue
		}
		if out == nil {
			out = map[string]inherited{}
		}
		out[path] = *d
	}
	return out, nil
}

// firstBelow looks a directory up in the layers below i, the nearest first. Whatever else than a directory or a link is
// there ends the search: it is hidden, or reached through a link, and not this one.
func firstBelow(marks []*mark, dirs []string, i int, path string) (*inherited, error) {
	for j := i - 1; j >= 0; j-- {
		d, err := statDir(dirs[j], path)
		switch {
		case err == nil && (d.Link != "" || marks[j].stands(path)):
			return d, nil
		case err != nil && !notExist(err):
			return nil, err
		case err == errNoDirectory:
			return nil, nil
		}
		if marks[j].Hides {
			return nil, nil
		}
	}
	return nil, nil
}

// stands says that a directory of a layer is there for its own sake, or has what is below it.
func (m *mark) stands(path string) bool {
	if _, ok := m.inherited[path]; ok {
		return true
	}
	_, implied := slices.BinarySearch(m.Implied, path)
	return !implied
}

// errNoDirectory says that something else is in the way. It Is fs.ErrNotExist.
var errNoDirectory error = &noDirectory{}

type noDirectory struct{}

func (*noDirectory) Error() string        { return "not a directory" }
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
func (s *Store) inherit(info *Info, marks []*mark, unpack func(i int, key string, from map[string]inherited) (*mark, error)) ([]string, error) {
	keys := make([]string, len(marks))
	dirs := make([]string, len(marks))
	for i := range marks {
		keys[i] = s.layerKey(digest.Digest(info.Config.DiffIDs[i]))
		dirs[i] = s.layerDir(keys[i])
		if len(marks[i].Implied) == 0 {
			continue
		}
		base, from := keys[i], map[string]inherited(nil)
		for range maxRounds {
			next, err := inheritance(marks, dirs, i, isPrivileged())
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
		m.inherited = from
		marks[i] = &m
	}
	return keys, nil
}

// baseKey is the diff ID that the name of an unpacked layer begins with.
func baseKey(key string) string {
	id, _, _ := strings.Cut(key, "-")
	return id
}
