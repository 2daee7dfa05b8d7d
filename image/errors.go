package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Causes of refusals, for [errors.Is]. What is refused was left as it was before.
var (
	// ErrNotFound says that a name, an image or a blob is not in the store. It Is [fs.ErrNotExist].
	ErrNotFound error = &notFound{}
	// ErrReference says that a text is not an image reference.
	ErrReference = errors.New("not an image reference")
	// ErrDigest says that content does not have the digest that it should have.
	ErrDigest = errors.New("content does not match its digest")
	// ErrSize says that content does not have the size that its descriptor gives.
	ErrSize = errors.New("content does not have the size that was announced")
	// ErrDocument says that an index, a manifest or a config is not what the image specification allows: broken JSON, a
	// key that occurs twice, the shape of two kinds at once, a media type that contradicts the content.
	ErrDocument = errors.New("malformed image document")
	// ErrMediaType says that a media type is not supported.
	ErrMediaType = errors.New("unsupported media type")
	// ErrPlatform says that an index has no image for the platform.
	ErrPlatform = errors.New("no image for the platform")
	// ErrLimit is what every [LimitError] Is.
	ErrLimit = errors.New("limit exceeded")
	// ErrTraversal says that the name of an entry, or the target of a hard link, has a ".." component.
	ErrTraversal = errors.New("path with \"..\"")
	// ErrRootReplaced says that an entry would make the root directory something else than a directory.
	ErrRootReplaced = errors.New("entry replaces the root directory")
	// ErrBadName says that the name of an entry cannot be a file's name: it has a null byte, is not UTF-8, is too long.
	ErrBadName = errors.New("bad file name")
	// ErrBadLink says that a hard link leads nowhere in its layer, to a directory, or to itself.
	ErrBadLink = errors.New("bad hard link")
	// ErrBadWhiteout says that a whiteout hides no possible name.
	ErrBadWhiteout = errors.New("bad whiteout")
	// ErrBadHeader says that the header of an entry contradicts itself or holds values that no file can have.
	ErrBadHeader = errors.New("bad header")
	// ErrArchive says that the archive of a layer is broken or ends too soon.
	ErrArchive = errors.New("broken archive")
	// ErrDevice says that a layer has a device node and [Policy] refuses them, or that the node is the kernel's own mark
	// of a whiteout.
	ErrDevice = errors.New("device node refused")
	// ErrInUse says that something is used by this or another process.
	ErrInUse = errors.New("in use")
	// ErrCorrupt says that the store's own files are not as they were written.
	ErrCorrupt = errors.New("store is damaged")
)

type notFound struct{}

func (*notFound) Error() string        { return "not found" }
func (*notFound) Is(target error) bool { return target == fs.ErrNotExist }

// Error is an operation of this package that failed: what was done, on what, why not, and what helps. Names and texts in it may
// come from a hostile image or registry; they are quoted, and control characters escaped.
type Error struct {
	Op     string        // "unpack", "open store"
	Object string        // image, file or directory; may be empty
	Layer  digest.Digest // the layer's blob, where one is concerned
	Entry  string        // the entry of the layer's archive, where one is concerned
	Err    error         // cause: one of the errors above, an errno, an error of the registry
	Remedy string        // what to do; may be empty
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("image: " + e.Op)
	if e.Object != "" {
		b.WriteString(" " + shown(e.Object))
	}
	if e.Layer != "" {
		b.WriteString(": layer " + shown(e.Layer.String()))
	}
	if e.Entry != "" {
		b.WriteString(": entry " + strconv.Quote(clip(e.Entry)))
	}
	b.WriteString(": " + shownError(e.Err))
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// LimitError is a limit that was met. It Is [ErrLimit].
type LimitError struct {
	// Limit is the name of the field of [Limits], such as "Bytes".
	Limit string
	// Max is the limit's value, in the unit of the field (nanoseconds for Time).
	Max int64
	// Need is what would have been needed, where that is known; otherwise zero.
	Need int64
	// What is what needs it, such as "a zstd window of 128 MiB", where it is one thing; otherwise empty.
	What string
}

func (e *LimitError) Error() string {
	s := "more than Limits." + e.Limit + " allows (" + strconv.FormatInt(e.Max, 10) + ")"
	if e.Need > 0 {
		s += ": "
		if e.What != "" {
			s += e.What + " takes "
		}
		s += strconv.FormatInt(e.Need, 10)
	}
	return s
}

// Is makes every LimitError an ErrLimit.
func (e *LimitError) Is(target error) bool { return target == ErrLimit }

// because joins a sentinel with the words of this case, so that both errors.Is and the reader are served.
func because(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(format, args...))
}

// fail makes an Error, or leaves err as it is where it is one already.
func fail(op, object string, err error) error {
	if _, is := err.(*Error); is || err == nil {
		return err
	}
	if parts := joined(err); parts != nil {
		return joinedBy(parts, func(e error) error { return fail(op, object, e) })
	}
	return &Error{Op: op, Object: object, Err: underlying(err)}
}

// underlying strips a path that the os package adds where the Error names the object.
func underlying(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) && pe == err {
		return fmt.Errorf("%s %s: %w", pe.Op, pe.Path, pe.Err)
	}
	return err
}

// errInvalid is what a wrong argument Is.
var errInvalid = fs.ErrInvalid

// clip bounds text of unknown length in a message.
func clip(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
