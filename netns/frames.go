package netns

import "os"

// ListenFrames opens a packet socket (packet(7), AF_PACKET) inside the namespace, bound to a device: each Read of the file is one frame with
// its link-layer header, each Write sends one. etherType is what is received, 0x0003 (ETH_P_ALL) for everything, 0 for nothing. It takes
// deadlines, and is the caller's. It needs CAP_NET_RAW in the user namespace that owns the network namespace, besides what
// [Namespace.Dial] needs. The error matches [ErrNotFound] if there is no such device.
func (n *Namespace) ListenFrames(device string, etherType uint16) (f *os.File, err error) {
	if err := checkDevice(device); (err != nil || device == "") && device != "lo" {
		return nil, fault("device", "%q", device)
	}
	err = n.orBySocket(func() (err error) {
		f, err = packetSocket(device, etherType)
		return err
	}, func() (err error) {
		f, err = n.packetSocket(device, etherType)
		return err
	})
	return f, err
}
