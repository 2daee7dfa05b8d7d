package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Stream says where an entry comes from.
type Stream int

// Streams.
const (
	Stdout Stream = iota + 1
	Stderr
)

// String returns "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Format is how entries are written.
type Format int

// Formats.
const (
	// JSONLines is the format of Docker's driver json-file: an object per line.
	//
	//	{"log":"hello\n","stream":"stdout","time":"2026-01-02T15:04:05.123456789Z"}
	JSONLines Format = iota
	// Plain is the format of the Kubernetes container runtime interface: time, stream, F for a whole line or P for a part of
	// one, and the text as it is.
	//
	//	2026-01-02T15:04:05.123456789Z stdout F hello
	Plain
)

// Entry is a line that a container wrote, or a part of a long one.
type Entry struct {
	Time    time.Time
	Stream  Stream
	Text    string // without the line break
	Partial bool   // the line goes on in the next entry of the stream
}

// Bounds, in bytes.
const (
	// MaxText is the length at which a line is divided.
	MaxText = 16 << 10
	// maxLine is more than a line of a file can have: each byte of text may take six.
	maxLine = 6*MaxText + 256
)

// ErrCorrupt: a line of a log is not an entry.
var ErrCorrupt = errors.New("not a log entry")

// timeLayout is RFC 3339 with a fixed width, so that lines can be compared as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// Append appends the entry as a line of a file.
func (f Format) Append(b []byte, t time.Time, s Stream, text []byte, partial bool) []byte {
	if f == Plain {
		b = t.UTC().AppendFormat(b, timeLayout)
		b = append(append(b, ' '), s.String()...)
		if partial {
			b = append(b, " P "...)
		} else {
			b = append(b, " F "...)
		}
		return append(append(b, text...), '\n')
	}
	b = appendText(append(b, `{"log":"`...), text)
	if !partial {
		b = append(b, `\n`...)
	}
	b = append(append(b, `","stream":"`...), s.String()...)
	b = t.UTC().AppendFormat(append(b, `","time":"`...), timeLayout)
	return append(b, "\"}\n"...)
}

const hex = "0123456789abcdef"

// appendText appends the content of a JSON string. What is not UTF-8 becomes U+FFFD.
func appendText(b, text []byte) []byte {
	for len(text) > 0 {
		c := text[0]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(text)
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, `\ufffd`...)
			case r == '\u2028' || r == '\u2029': // line breaks to JavaScript
				b = append(b, `\u202`...)
				b = append(b, hex[r&15])
			default:
				b = append(b, text[:n]...)
			}
			text = text[n:]
			continue
		}
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < ' ' || c == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
		text = text[1:]
	}
	return b
}

// Parse reads a line of a file, of either format, without its line break.
func Parse(line []byte) (Entry, error) {
	if len(line) > 0 && line[0] == '{' {
		return parseJSON(line)
	}
	return parsePlain(line)
}

func parseJSON(line []byte) (Entry, error) {
	var j struct {
		Log    *string   `json:"log"`
		Stream string    `json:"stream"`
		Time   time.Time `json:"time"`
	}
	if err := json.Unmarshal(line, &j); err != nil || j.Log == nil {
		return Entry{}, corrupt(line)
	}
	e := Entry{Time: j.Time.UTC(), Text: *j.Log, Partial: true}
	if n := len(e.Text); n > 0 && e.Text[n-1] == '\n' {
		e.Text, e.Partial = e.Text[:n-1], false
	}
	return e, e.Stream.parse(j.Stream, line)
}

func parsePlain(line []byte) (Entry, error) {
	stamp, rest, ok1 := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, text, ok3 := bytes.Cut(rest, []byte(" "))
	tag, _, _ = bytes.Cut(tag, []byte(":")) // further tags may follow
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if !ok1 || !ok2 || !ok3 || err != nil || string(tag) != "F" && string(tag) != "P" {
		return Entry{}, corrupt(line)
	}
	e := Entry{Time: t.UTC(), Text: string(text), Partial: string(tag) == "P"}
	return e, e.Stream.parse(string(stream), line)
}

func (s *Stream) parse(name string, line []byte) error {
	switch name {
	case "stdout":
		*s = Stdout
	case "stderr":
		*s = Stderr
	default:
		return corrupt(line)
	}
	return nil
}

func corrupt(line []byte) error { return fmt.Errorf("%w: %.60q", ErrCorrupt, line) }
