package cgroups

import (
	"bytes"
	"math"
	"time"
)

// flatKeyed reads the kernel's "flat keyed" format and calls f for each line with a number:
//
//	usage_usec 88861442
//	user_usec 53653539
//
// Lines of another form are passed over. It does not allocate.
func flatKeyed(text []byte, f func(key []byte, n uint64)) {
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		key, rest, ok := bytes.Cut(line, space)
		if n, isNum := parseUint(rest); ok && isNum && len(key) > 0 {
			f(key, n)
		}
	}
}

var newline, space = []byte("\n"), []byte(" ")

// flatValue returns the number of one key.
func flatValue(text []byte, key string) (v Value[uint64]) {
	flatKeyed(text, func(k []byte, n uint64) {
		if string(k) == key {
			v = ValueOf(n)
		}
	})
	return v
}

// pickValue finds one line by its name, without reading the others: for files of many lines.
func pickValue(text []byte, key string) (v Value[uint64]) {
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(key))
		if i < 0 {
			return v
		}
		i += from
		from = i + len(key)
		if (i == 0 || text[i-1] == '\n') && from < len(text) && text[from] == ' ' {
			line, _, _ := bytes.Cut(text[from+1:], newline)
			if n, ok := parseUint(line); ok {
				v = ValueOf(n)
			}
			return v
		}
	}
}

// single reads a file of one number; "max" and rubbish are not available.
func single(text []byte) (v Value[uint64]) {
	if n, ok := parseUint(bytes.TrimSpace(text)); ok {
		v = ValueOf(n)
	}
	return v
}

// limit reads a file of one limit. None is the greatest number there is: v2 says "max", v1 the most that its counters of pages hold, or more.
func limit(text []byte) Value[uint64] {
	const greatest = math.MaxInt64 - 64<<10 // less a page, of whatever size
	v := single(text)
	if v.ok && v.n >= greatest || string(bytes.TrimSpace(text)) == "max" {
		return ValueOf(uint64(math.MaxUint64))
	}
	return v
}

// parseUint reads decimal digits and nothing else.
func parseUint(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || n > (1<<64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// duration turns a count of unit into a duration; what would overflow is not available.
func duration(v Value[uint64], unit time.Duration) Value[time.Duration] {
	if !v.ok || v.n > uint64(1<<63-1)/uint64(unit) {
		return Value[time.Duration]{}
	}
	return ValueOf(time.Duration(v.n) * unit)
}

// ioTotals sums io.stat over all devices:
//
//	8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=50331648 dios=3021
func ioTotals(text []byte) (s IOStats) {
	s.ReadBytes, s.WriteBytes, s.ReadOps, s.WriteOps = ValueOf[uint64](0), ValueOf[uint64](0), ValueOf[uint64](0), ValueOf[uint64](0)
	for field := range bytes.FieldsSeq(text) {
		key, val, ok := bytes.Cut(field, []byte("="))
		n, isNum := parseUint(val)
		if !ok || !isNum {
			continue
		}
		switch string(key) {
		case "rbytes":
			s.ReadBytes.n += n
		case "wbytes":
			s.WriteBytes.n += n
		case "rios":
			s.ReadOps.n += n
		case "wios":
			s.WriteOps.n += n
		}
	}
	return s
}

// blkioTotals sums blkio.throttle.io_service_bytes over all devices ("8:0 Read 4096"), and io_serviced likewise.
func blkioTotals(text []byte) (read, write Value[uint64]) {
	read, write = ValueOf[uint64](0), ValueOf[uint64](0)
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, newline)
		_, rest, ok1 := bytes.Cut(line, space)
		what, num, ok2 := bytes.Cut(rest, space)
		n, isNum := parseUint(num)
		if !ok1 || !ok2 || !isNum {
			continue
		}
		switch string(what) {
		case "Read":
			read.n += n
		case "Write":
			write.n += n
		}
	}
	return read, write
}

// parsePids reads one number a line. v1 may repeat one.
func parsePids(text []byte) (list []int) {
	for line := range bytes.Lines(text) {
		if n, ok := parseUint(bytes.TrimSpace(line)); ok && n < 1<<31 {
			list = append(list, int(n))
		}
	}
	return list
}
