package cgroups

import (
	"bytes"
	"math"
)

// parseMajorMinor reads "8:16".
func parseMajorMinor(b []byte) (major, minor uint32, ok bool) {
	x, y, cut := bytes.Cut(b, []byte(":"))
	m, ok1 := parseUint(x)
	n, ok2 := parseUint(y)
	return uint32(m), uint32(n), cut && ok1 && ok2 && m <= math.MaxUint32 && n <= math.MaxUint32
}

// ioDevices reads io.stat device by device; see ioTotals.
func ioDevices(text []byte) (list []IODeviceStats) {
	for line := range bytes.Lines(text) {
		number, rest, _ := bytes.Cut(bytes.TrimSpace(line), space)
		major, minor, ok := parseMajorMinor(number)
		if !ok {
			continue
		}
		d := IODeviceStats{Major: major, Minor: minor}
		for field := range bytes.FieldsSeq(rest) {
			key, val, _ := bytes.Cut(field, []byte("="))
			switch string(key) {
			case "rbytes":
				d.ReadBytes = single(val)
			case "wbytes":
				d.WriteBytes = single(val)
			case "rios":
				d.ReadOps = single(val)
			case "wios":
				d.WriteOps = single(val)
			case "dbytes":
				d.DiscardBytes = single(val)
			case "dios":
				d.DiscardOps = single(val)
			}
		}
		list = append(list, d)
	}
	return list
}

// blkioDevices adds what blkio.throttle.io_service_bytes ("8:0 Read 4096") or, with ops, io_serviced says of each device.
func blkioDevices(list []IODeviceStats, text []byte, ops bool) []IODeviceStats {
	for line := range bytes.Lines(text) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			continue
		}
		major, minor, ok := parseMajorMinor(f[0])
		n, isNum := parseUint(f[2])
		if !ok || !isNum {
			continue
		}
		i := findDevice(list, major, minor)
		if i < 0 {
			i = len(list)
			list = append(list, IODeviceStats{Major: major, Minor: minor})
		}
		list[i].set(string(f[1]), ops, n)
	}
	return list
}

func findDevice(list []IODeviceStats, major, minor uint32) int {
	for i := range list {
		if list[i].Major == major && list[i].Minor == minor {
			return i
		}
	}
	return -1
}

func (d *IODeviceStats) set(what string, ops bool, n uint64) {
	v := ValueOf(n)
	switch {
	case what == "Read" && ops:
		d.ReadOps = v
	case what == "Read":
		d.ReadBytes = v
	case what == "Write" && ops:
		d.WriteOps = v
	case what == "Write":
		d.WriteBytes = v
	case what == "Discard" && ops:
		d.DiscardOps = v
	case what == "Discard":
		d.DiscardBytes = v
	}
}

// parseMemoryEvents reads memory.events and memory.events.local.
func parseMemoryEvents(text []byte) (e MemoryEvents) {
	flatKeyed(text, func(k []byte, n uint64) {
		v := ValueOf(n)
		switch string(k) {
		case "low":
			e.Low = v
		case "high":
			e.High = v
		case "max":
			e.Max = v
		case "oom":
			e.OOM = v
		case "oom_kill":
			e.OOMKill = v
		case "oom_group_kill":
			e.OOMGroupKill = v
		}
	})
	return e
}
