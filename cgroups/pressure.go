package cgroups

import (
	"bytes"
	"time"
)

// A Pressure says how much of the time processes stood still for want of something (PSI: Documentation/accounting/psi.rst,
// Linux 4.20). The averages are percentages of the last 10, 60 and 300 seconds.
type Pressure struct {
	Some Stall // at least one process stood still
	Full Stall // all that were not idle did, at once
}

// A Stall is one line of a pressure file. All is zero, and Total not available, where the kernel keeps none.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                Value[time.Duration]
}

// PressureStats are the pressure files of a group. Every v2 group has them, that beside v1 groups too.
type PressureStats struct {
	CPU    Pressure
	Memory Pressure
	IO     Pressure
	IRQ    Pressure // time lost to interrupts; only Full, Linux 6.1 with CONFIG_IRQ_TIME_ACCOUNTING
}

// parsePressure reads
//
//	some avg10=0.00 avg60=1.25 avg300=0.40 total=1146870
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=331981
func parsePressure(text []byte) (p Pressure) {
	for line := range bytes.Lines(text) {
		kind, rest, _ := bytes.Cut(bytes.TrimSpace(line), space)
		switch string(kind) {
		case "some":
			p.Some = parseStall(rest)
		case "full":
			p.Full = parseStall(rest)
		}
	}
	return p
}

func parseStall(text []byte) (s Stall) {
	for field := range bytes.FieldsSeq(text) {
		key, val, _ := bytes.Cut(field, []byte("="))
		switch string(key) {
		case "avg10":
			s.Avg10 = percent(val)
		case "avg60":
			s.Avg60 = percent(val)
		case "avg300":
			s.Avg300 = percent(val)
		case "total":
			s.Total = duration(single(val), time.Microsecond)
		}
	}
	return s
}

// percent reads "12.34", of at most 100; what is not like it is 0.
func percent(b []byte) float64 {
	whole, part, ok := bytes.Cut(b, []byte("."))
	w, ok1 := parseUint(whole)
	p, ok2 := parseUint(part)
	if !ok || !ok1 || !ok2 || len(part) != 2 || w > 100 {
		return 0
	}
	return float64(w) + float64(p)/100
}
