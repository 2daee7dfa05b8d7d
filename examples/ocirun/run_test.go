//go:build linux

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// No signal that can be had ends the program before it has asked for all.
func TestUsual(t *testing.T) {
	const sign = "OCIRUN_TEST_USUAL"
	if os.Getenv(sign) != "" {
		notified(false).await()
		os.Stdout.WriteString("\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch sig {
		case syscall.SIGKILL, syscall.SIGSTOP, 32, 33, 34: // the kernel's, and those that C libraries use, which Go gives nobody
			continue
		case syscall.SIGTTIN, syscall.SIGTTOU: // they stop it, as a shell wants it
			continue
		}
		t.Run(strconv.Itoa(int(sig)), func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestUsual$")
			cmd.Env = append(os.Environ(), sign+"=1")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Error(err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
