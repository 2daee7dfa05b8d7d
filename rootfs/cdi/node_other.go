//go:build !linux

package cdi

import "fmt"

func nodeOf(path string) (typ string, major, minor int64, err error) {
	return "", 0, 0, fmt.Errorf("%w: %s: device nodes need Linux", ErrUnsupported, path)
}
