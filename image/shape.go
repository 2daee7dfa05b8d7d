package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// Bounds of what a document costs in memory: a level, or a value of three bytes, takes a hundred when it is decoded.
const (
	maxDocDepth  = 1000    // objects and arrays in one another
	maxDocValues = 1 << 17 // members of objects and elements of arrays, all together: the largest index with thirty for each entry
)

// docLevel is an object or an array that is not closed yet.
type docLevel struct {
	object bool
	want   bool                // a key comes next
	keys   map[string]struct{} // made with the first one
}

// addKey refuses a key that the object has already.
func (l *docLevel) addKey(key string) error {
	if _, ok := l.keys[key]; ok {
		return because(ErrDocument, "key %q twice", clip(key))
	}
	if l.keys == nil {
		l.keys = map[string]struct{}{}
	}
	l.keys[key] = struct{}{}
	l.want = false
	return nil
}

// noDuplicates refuses objects with a key twice, since which one counts is up to the reader, and what would take much more memory than its text.
func noDuplicates(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var open []docLevel
	for values := 0; ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) && len(open) == 0 {
			return nil
		}
		if err != nil {
			return because(ErrDocument, "%v", err)
		}
		if n := len(open); n > 0 && open[n-1].object && open[n-1].want {
			if key, ok := tok.(string); ok {
				if err := open[n-1].addKey(key); err != nil {
					return err
				}
				continue
			}
		}
		switch tok {
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		default:
			if values++; values > maxDocValues {
				return because(ErrDocument, "more than %d values", maxDocValues)
			}
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			if len(open) == maxDocDepth {
				return because(ErrDocument, "objects and arrays more than %d deep", maxDocDepth)
			}
			open = append(open, docLevel{object: tok == json.Delim('{'), want: true})
			continue
		}
		if n := len(open); n > 0 {
			open[n-1].want = true
		}
	}
}
