//go:build !linux

package image

import "errors"

func isPrivileged() bool { return false }

func statDir(string, string) (*inherited, error) { return nil, errors.ErrUnsupported }
