package netns

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Frames that one namespace sends are received by a socket of the other, both used outside.
func TestListenFrames(t *testing.T) {
	nothingLeft(t)
	outside, _, _ := world(t)
	const etherType = 0x88b5 // for experiments (IEEE 802)
	in, err := outside.ListenFrames("eth0", etherType)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	here, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	out, err := here.ListenFrames("csworld", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	frame := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1, etherType>>8, etherType&0xff, 'h', 'i')
	b := make([]byte, 2000)
	n := 0
	for range 100 { // until the kernel has noticed that the devices are connected, frames are lost
		if _, err := out.Write(frame); err != nil {
			t.Fatal(err)
		}
		_ = in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err = in.Read(b); err == nil {
			break
		}
	}
	if err != nil || !bytes.HasPrefix(b[:n], frame) {
		t.Errorf("%x %v", b[:n], err)
	}
	if _, err := outside.ListenFrames("nowhere", unix.ETH_P_ALL); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := outside.ListenFrames("", unix.ETH_P_ALL); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
