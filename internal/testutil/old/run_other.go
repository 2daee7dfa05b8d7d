//go:build !linux

package main

import (
	"errors"
	"fmt"
)

func run([]string) error {
	return fmt.Errorf("filters of system calls are Linux's: %w", errors.ErrUnsupported)
}
