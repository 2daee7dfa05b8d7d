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

// printableLines is printable for the text of an error, which may be several, one a line.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	return strings.Join(lines, "\n")
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
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	return foreignError{err}
}
