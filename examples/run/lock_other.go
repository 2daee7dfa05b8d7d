//go:build !unix

package main

import (
	"errors"
	"os"
)

func lockDir(string, bool) (*os.File, error) { return nil, errors.ErrUnsupported }
