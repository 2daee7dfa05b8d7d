//go:build unix

package main

import (
	"os"
	"syscall"
)

var resizeSignals = []os.Signal{syscall.SIGWINCH}

func isResize(s os.Signal) bool { return s == syscall.SIGWINCH }
