package image

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// shown is text of unknown length and origin as it stands in a message without quotes: a terminal takes none of it for a command.
func shown(s string) string { return printable(clip(s)) }

// printable replaces what is no letter, mark, sign or plain space by what Go's literals have for it.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatInt(int64(s[0]), 16))
		case unprintable(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// shownError is the text of an error as it can be shown. Only the ends of lines between errors that were joined are of this program; any other
// may be of a name in an image, and could pass for a line of somebody else's.
func shownError(err error) string {
	parts := joined(err)
	if parts == nil {
		return printable(err.Error())
	}
	lines := make([]string, len(parts))
	for i, e := range parts {
		lines[i] = shownError(e)
	}
	return strings.Join(lines, "\n")
}

// joined are the errors that errors.Join made one of; nil where it did not.
func joined(err error) []error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	parts := many.Unwrap()
	lines := make([]string, len(parts))
	for i, e := range parts {
		lines[i] = e.Error()
	}
	if len(parts) == 0 || err.Error() != strings.Join(lines, "\n") {
		return nil
	}
	return parts
}

// joinedBy makes of each error that was joined what f makes of it.
func joinedBy(parts []error, f func(error) error) error {
	out := make([]error, len(parts))
	for i, e := range parts {
		out[i] = f(e)
	}
	return errors.Join(out...)
}

// foreignError is an error with words of a registry in it.
type foreignError struct{ err error }

// maxForeign bounds the words of a registry in a message.
const maxForeign = 1024

func (e foreignError) Error() string {
	s := e.err.Error()
	if len(s) > maxForeign {
		s = s[:maxForeign] + "..."
	}
	return printable(s)
}

func (e foreignError) Unwrap() error { return e.err }

// foreign makes the text of an error fit to be shown. Errors of this package are.
func foreign(err error) error {
	if _, own := err.(*Error); own || err == nil {
		return err
	}
	return foreignError{err}
}
