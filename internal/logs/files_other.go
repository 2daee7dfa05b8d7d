//go:build !linux

package logs

import (
	"errors"
	"os"
)

const noFollow = 0

// ErrBusy: another writer has the log.
var ErrBusy = errors.New("another container writes to this log")

func lock(*os.File) error { return errors.ErrUnsupported }
