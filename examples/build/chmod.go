package main

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// modeChange is what -chmod of COPY and ADD says: an octal number, or clauses such as u=rwX,go=rX. The nil one changes nothing.
type modeChange struct {
	text    string
	octal   fs.FileMode
	clauses []modeClause
}

type modeClause struct {
	who   uint32 // the permission bits that are concerned
	op    byte
	perms string
}

func (m *modeChange) String() string {
	if m == nil {
		return ""
	}
	return m.text
}

func parseMode(text string) (*modeChange, error) {
	if text == "" {
		return nil, nil
	}
	m := &modeChange{text: text}
	if n, err := strconv.ParseUint(text, 8, 32); err == nil {
		if n > 0o7777 {
			return nil, fmt.Errorf("--chmod=%s: more than 7777", text)
		}
		m.octal = fs.FileMode(n & 0o777)
		for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
			if n&bit != 0 {
				m.octal |= flag
			}
		}
		return m, nil
	}
	for clause := range strings.SplitSeq(text, ",") {
		c, ok := parseClause(clause)
		if !ok {
			return nil, fmt.Errorf("--chmod=%s: want an octal number or clauses such as u=rwX,go=rX", text)
		}
		m.clauses = append(m.clauses, c)
	}
	return m, nil
}

func parseClause(s string) (modeClause, bool) {
	i := strings.IndexAny(s, "+-=")
	if i < 0 || strings.Trim(s[:i], "ugoa") != "" || strings.Trim(s[i+1:], "rwxXst") != "" {
		return modeClause{}, false
	}
	c := modeClause{op: s[i], perms: s[i+1:]}
	for _, w := range s[:i] {
		c.who |= map[rune]uint32{'u': 0o700, 'g': 0o070, 'o': 0o007, 'a': 0o777}[w]
	}
	if c.who == 0 {
		c.who = 0o777
	}
	return c, true
}

// apply leaves symbolic links alone, which have no permissions.
func (m *modeChange) apply(mode fs.FileMode) fs.FileMode {
	if m == nil || mode&fs.ModeSymlink != 0 {
		return mode
	}
	if m.clauses == nil {
		return mode.Type() | m.octal
	}
	for _, c := range m.clauses {
		mode = c.apply(mode)
	}
	return mode
}

func (c modeClause) apply(mode fs.FileMode) fs.FileMode {
	var bits, special fs.FileMode
	for _, p := range c.perms {
		switch p {
		case 'r':
			bits |= 0o444
		case 'w':
			bits |= 0o222
		case 'x':
			bits |= 0o111
		case 'X':
			if mode.IsDir() || mode&0o111 != 0 {
				bits |= 0o111
			}
		case 's':
			if c.who&0o700 != 0 {
				special |= fs.ModeSetuid
			}
			if c.who&0o070 != 0 {
				special |= fs.ModeSetgid
			}
		case 't':
			special |= fs.ModeSticky
		}
	}
	bits &= fs.FileMode(c.who)
	switch c.op {
	case '+':
		return mode | bits | special
	case '-':
		return mode &^ (bits | special)
	}
	return mode&^fs.FileMode(c.who) | bits | special
}
