//go:build !unix

package main

import "os"

var resizeSignals []os.Signal

func isResize(os.Signal) bool { return false }
