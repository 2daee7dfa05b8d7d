//go:build !linux

package image

import "errors"

func isPrivileged() bool { return false }

type layerRoot struct {
	path string
	fd   int
}

func (*layerRoot) close() {}

func (*layerRoot) stat(string) (*inherited, error) { return nil, errors.ErrUnsupported }
