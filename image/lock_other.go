//go:build !linux

package image

import (
	"errors"
	"os"
)

func flock(*os.File, bool) error { return errors.ErrUnsupported }

func checkOwner(string) error { return errors.ErrUnsupported }

func syncFS(string) error { return errors.ErrUnsupported }

func bootID() (string, error) { return "", errors.ErrUnsupported }
