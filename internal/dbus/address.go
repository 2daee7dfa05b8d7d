package dbus

import (
	"strconv"
	"strings"
)

// sockets returns the Unix sockets that a list of server addresses names, "unix:path=/run/user/1000/bus;…": a path, or
// "@" and an abstract name. Other transports are passed over.
func sockets(addresses string) (list []string) {
	for address := range strings.SplitSeq(addresses, ";") {
		transport, keys, _ := strings.Cut(address, ":")
		if transport != "unix" {
			continue
		}
		for pair := range strings.SplitSeq(keys, ",") {
			key, value, _ := strings.Cut(pair, "=")
			value, ok := unescape(value)
			switch {
			case !ok || value == "" || strings.ContainsRune(value, 0):
			case key == "path" && value[0] == '/':
				list = append(list, value)
			case key == "abstract":
				list = append(list, "@"+value)
			}
		}
	}
	return list
}

// unescape undoes %XX.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(s, "%")
		b.WriteString(plain)
		if !found {
			return b.String(), true
		}
		if len(rest) < 2 {
			return "", false
		}
		c, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		s = rest[2:]
	}
}

// Escape writes a path as it stands in an address.
func Escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_/.", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteString("%" + strconv.FormatUint(uint64(c)|0x100, 16)[1:])
		}
	}
	return b.String()
}
