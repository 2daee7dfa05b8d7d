package netns

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what an endpoint carries; the zero value bounds nothing. They are enforced on the host's side, where the container
// cannot lift them. The container's own loopback device is not limited.
type Limits struct {
	// Download bounds what the container receives, Upload what it sends: packets beyond wait, and are dropped when more than
	// 50 ms of them wait.
	Download, Upload Rate
	// Delay is added to every packet on its way to the container, and so to each round trip: 0 to a minute. It, Jitter and Loss
	// need the queueing discipline netem (CONFIG_NET_SCH_NETEM); the error matches [ErrUnsupported] if the kernel lacks it.
	Delay time.Duration
	// Jitter varies the delay by up to that much, at random; at most Delay. Packets may overtake each other.
	Jitter time.Duration
	// Loss is the share of packets to the container that are lost, 0 to 1.
	Loss float64
}

// Rate is how much may pass.
type Rate struct {
	// BitsPerSecond counts whole Ethernet frames: 8000 (a kilobyte a second) to 100 000 000 000. Zero: no bound.
	BitsPerSecond uint64
	// Burst is how many bytes may pass at once after a pause, 2048 to 256 MiB. Default: what passes in 10 ms, 64 KiB at least.
	Burst uint32
}

// Bounds of a rate.
const (
	minRate, maxRate   = 8000, 100_000_000_000
	minBurst, maxBurst = 2048, 256 << 20
	maxDelay           = time.Minute
	queueTime          = 50 * time.Millisecond // how long packets wait before others are dropped
)

func (l *Limits) netem() bool { return l.Delay > 0 || l.Loss > 0 }

func (l *Limits) any() bool {
	return l.Download.BitsPerSecond > 0 || l.Upload.BitsPerSecond > 0 || l.netem()
}

func (l *Limits) validate() error {
	var faults []error
	for _, r := range []struct {
		name string
		Rate
	}{{"Download", l.Download}, {"Upload", l.Upload}} {
		switch {
		case r.Rate == Rate{}:
		case r.BitsPerSecond < minRate || r.BitsPerSecond > maxRate:
			faults = append(faults, fmt.Errorf("%s: %d bits a second are not %d to %d", r.name, r.BitsPerSecond, minRate, uint64(maxRate)))
		case r.Burst != 0 && (r.Burst < minBurst || r.Burst > maxBurst):
			faults = append(faults, fmt.Errorf("%s: a burst of %d bytes is not %d to %d", r.name, r.Burst, minBurst, maxBurst))
		}
	}
	if l.Delay < 0 || l.Delay > maxDelay {
		faults = append(faults, fmt.Errorf("a delay of %v is not 0 to %v", l.Delay, maxDelay))
	}
	if l.Jitter < 0 || l.Jitter > l.Delay {
		faults = append(faults, fmt.Errorf("a jitter of %v is not 0 to the delay", l.Jitter))
	}
	if !(l.Loss >= 0 && l.Loss <= 1) {
		faults = append(faults, fmt.Errorf("a loss of %v is not 0 to 1", l.Loss))
	}
	return errors.Join(faults...)
}

// bytes is the rate in bytes a second.
func (r Rate) bytes() uint64 { return r.BitsPerSecond / 8 }

// burst fills in the default.
func (r Rate) burst() uint32 {
	if r.Burst != 0 {
		return r.Burst
	}
	return uint32(min(max(r.bytes()/100, 64<<10), maxBurst))
}

// queue is how many bytes may wait.
func (r Rate) queue() uint32 {
	return uint32(min(r.bytes()*uint64(queueTime)/uint64(time.Second), maxBurst)) + r.burst()
}
