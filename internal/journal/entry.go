package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of an entry and of a file that is read back. A file larger than maxFile was not written by this package.
const (
	maxData  = 64 << 10
	maxOwner = 64
	maxFile  = 64 << 20
)

const magic = "caisson-journal 1 "

// Errors.
var (
	// ErrEntry: an entry cannot be recorded as given.
	ErrEntry = errors.New("journal: invalid entry")
	// ErrCorrupt: a file is not a journal, or was damaged.
	ErrCorrupt = errors.New("journal: corrupt file")
)

// Entry is something that has been recorded and not struck out.
type Entry struct {
	ID      uint64
	Owner   string // who can undo it: "namespaces.pin"
	Version int    // of the format of Data, chosen by the owner
	Data    []byte // JSON on one line
}

func header(bootID string) string { return magic + bootID + "\n" }

// check refuses what could not be read back.
func (e Entry) check() error {
	switch {
	case e.Owner == "" || len(e.Owner) > maxOwner || strings.ContainsFunc(e.Owner, notOwnerRune):
		return fmt.Errorf("%w: owner %q", ErrEntry, e.Owner)
	case e.Version < 0:
		return fmt.Errorf("%w: version %d", ErrEntry, e.Version)
	case len(e.Data) == 0 || len(e.Data) > maxData || bytes.IndexByte(e.Data, '\n') >= 0:
		return fmt.Errorf("%w: %d bytes of data; 1 to %d on one line are possible", ErrEntry, len(e.Data), maxData)
	}
	return nil
}

func notOwnerRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
}

func (e Entry) appendTo(b []byte) []byte {
	b = append(b, "add "...)
	b = strconv.AppendUint(b, e.ID, 10)
	b = append(b, ' ')
	b = append(b, e.Owner...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(e.Version), 10)
	b = append(b, ' ')
	b = append(b, e.Data...)
	return append(b, '\n')
}

func appendDone(b []byte, id uint64) []byte {
	b = append(b, "done "...)
	b = strconv.AppendUint(b, id, 10)
	return append(b, '\n')
}

// parse returns the boot id and the entries that are not struck out, oldest first. A last line without newline is left
// out: whoever wrote it was killed in the act and has not made the thing yet. Any other line that is not understood makes the
// file corrupt, with what was understood returned too.
func parse(b []byte) (bootID string, open []Entry, err error) {
	line, rest, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return "", nil, nil // killed before the header was complete
	}
	bootID, ok = strings.CutPrefix(string(line), magic)
	if !ok || bootID == "" {
		return "", nil, fmt.Errorf("%w: it does not begin with %q", ErrCorrupt, magic)
	}
	at := map[uint64]Entry{}
	var ids []uint64
	for n := 2; ; n++ {
		line, rest, ok = bytes.Cut(rest, []byte{'\n'})
		if !ok {
			break
		}
		e, done, lineErr := parseLine(line)
		_, known := at[e.ID]
		switch {
		case lineErr != nil || known != done:
			err = errors.Join(err, fmt.Errorf("%w: line %d: %.80q", ErrCorrupt, n, line))
		case done:
			delete(at, e.ID)
		default:
			at[e.ID] = e
			ids = append(ids, e.ID)
		}
	}
	// An id struck out and used again stands in ids twice.
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if e, ok := at[id]; ok {
			open = append(open, e)
		}
	}
	return bootID, open, err
}

func parseLine(line []byte) (e Entry, done bool, err error) {
	f := strings.SplitN(string(line), " ", 5)
	if len(f) < 2 {
		return e, false, ErrCorrupt
	}
	if e.ID, err = strconv.ParseUint(f[1], 10, 64); err != nil {
		return e, false, err
	}
	if f[0] == "done" && len(f) == 2 {
		return e, true, nil
	}
	if f[0] != "add" || len(f) != 5 {
		return e, false, ErrCorrupt
	}
	if e.Version, err = strconv.Atoi(f[3]); err != nil {
		return e, false, err
	}
	e.Owner, e.Data = f[2], []byte(f[4])
	return e, false, e.check()
}
