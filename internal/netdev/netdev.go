// Package netdev moves network devices between network namespaces, by rtnetlink(7), without a module for it.
package netdev

import (
	"errors"
	"fmt"
	"strings"
)

// ErrName is the error of what cannot be the name of a network device.
var ErrName = errors.New("this cannot be the name of a network device")

// CheckName refuses what cannot be the name of a network device: 1 to 15 bytes without slashes, colons and white space.
func CheckName(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") || strings.IndexByte(name, 0xa0) >= 0 {
		return fmt.Errorf("%q: %w: it has 1 to 15 bytes, without slashes, colons and spaces", name, ErrName)
	}
	return nil
}

// CheckNewName is [CheckName] for a name that a device is given. It may hold one "%d" then, for which the kernel puts the first number that
// makes the name a free one.
func CheckNewName(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if strings.Contains(strings.Replace(name, "%d", "", 1), "%") {
		return fmt.Errorf("%q: %w: of percent signs it may have those of one %%d", name, ErrName)
	}
	return nil
}

// Template reports whether the kernel is to find a number for the name.
func Template(name string) bool { return strings.Contains(name, "%d") }
