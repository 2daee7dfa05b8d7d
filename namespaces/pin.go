package namespaces

import "encoding/json"

// Journal records what outlives a program that is killed, so that a later one can undo it. Add is called before the
// thing is made, Done when it is gone; Done of an entry is called once.
type Journal interface {
	// Add records data, in the format version of the owner, and returns what identifies the entry.
	Add(owner string, version int, data []byte) (id uint64, err error)
	// Done strikes out the entry.
	Done(id uint64) error
}

// PinOwner is the name under which [Pin] makes journal entries; [UndoPin] undoes one.
const PinOwner = "namespaces.pin"

// pinVersion is the version of pinEntry.
const pinVersion = 1

type pinEntry struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Made bool   `json:"made,omitempty"` // the file at Path was to be made
}

func (e pinEntry) encode() ([]byte, error) { return json.Marshal(e) }

func decodePin(version int, data []byte) (e pinEntry, err error) {
	if version != pinVersion {
		return e, invalid("pin entry", "its version %d is unknown", version)
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, invalid("pin entry", "%v", err)
	}
	if e.Path == "" || e.Path[0] != '/' || e.Ino == 0 {
		return e, invalid("pin entry", "path %q, inode %d", e.Path, e.Ino)
	}
	return e, nil
}
