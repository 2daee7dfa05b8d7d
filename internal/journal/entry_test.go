package journal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func ids(l []Entry) (s string) {
	for _, e := range l {
		s += string(rune('0' + e.ID))
	}
	return s
}

func TestParse(t *testing.T) {
	const h = "caisson-journal 1 boot\n"
	for name, c := range map[string]struct {
		text, ids string
		corrupt   bool
	}{
		"empty":            {"", "", false},
		"torn header":      {h[:10], "", false},
		"header":           {h, "", false},
		"open":             {h + "add 1 a 1 {}\nadd 2 b.c 2 {\"x\": 1}\n", "12", false},
		"done":             {h + "add 1 a 1 {}\nadd 2 b 2 {}\ndone 1\n", "2", false},
		"torn add":         {h + "add 1 a 1 {}\nadd 2 b 2 {", "1", false},
		"torn done":        {h + "add 1 a 1 {}\ndone 1", "1", false},
		"other file":       {"#!/bin/sh\n", "", true},
		"no boot id":       {magic + "\n", "", true},
		"garbage between":  {h + "add 1 a 1 {}\nhello\nadd 2 b 1 {}\n", "12", true},
		"twice":            {h + "add 1 a 1 {}\nadd 1 a 1 {}\n", "1", true},
		"done unknown":     {h + "done 1\n", "", true},
		"bad owner":        {h + "add 1 A 1 {}\n", "", true},
		"negative version": {h + "add 1 a -1 {}\n", "", true},
		"no data":          {h + "add 1 a 1 \n", "", true},
	} {
		_, open, err := parse([]byte(c.text))
		if ids(open) != c.ids || errors.Is(err, ErrCorrupt) != c.corrupt {
			t.Errorf("%s: open %q, err %v", name, ids(open), err)
		}
	}
}

func TestCheck(t *testing.T) {
	good := Entry{ID: 1, Owner: "a.b-c_1", Version: 0, Data: []byte("{}")}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Entry){
		"no owner":   func(e *Entry) { e.Owner = "" },
		"blank":      func(e *Entry) { e.Owner = "a b" },
		"long owner": func(e *Entry) { e.Owner = strings.Repeat("a", 65) },
		"newline":    func(e *Entry) { e.Data = []byte("{\n}") },
		"no data":    func(e *Entry) { e.Data = nil },
		"much data":  func(e *Entry) { e.Data = make([]byte, maxData+1) },
		"version":    func(e *Entry) { e.Version = -1 },
	} {
		e := good
		change(&e)
		if err := e.check(); !errors.Is(err, ErrEntry) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("caisson-journal 1 boot\nadd 1 a 1 {}\nadd 2 b 2 {}\ndone 1\n"))
	f.Add([]byte("caisson-journal 1 boot\nadd 1 a 1 {}\nadd 1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		boot, open, err := parse(b)
		if err != nil {
			return
		}
		// What is open, written afresh, reads back the same.
		again := []byte(header(boot))
		for _, e := range open {
			if err := e.check(); err != nil {
				t.Fatal(err)
			}
			again = e.appendTo(again)
		}
		if boot == "" {
			return
		}
		_, open2, err := parse(again)
		if err != nil || len(open2) != len(open) {
			t.Fatalf("%q became %q: %v", b, again, err)
		}
		for i := range open {
			if open[i].ID != open2[i].ID || open[i].Owner != open2[i].Owner || !bytes.Equal(open[i].Data, open2[i].Data) {
				t.Fatalf("%+v became %+v", open[i], open2[i])
			}
		}
	})
}
