package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
)

// Pasta connects a container of an ordinary user to the world, without any privilege: the program pasta (package passt) carries
// its packets by sockets of the user's. The container appears with the host's own addresses. It can be given to
// caisson.WithNetwork, also for detached containers, and several times.
//
// The host's addresses are the container's own. So from inside no port that is published on the host, its own included, is reached by
// them (they refuse); containers connected by Pasta reach each other and themselves only with HostAccess, by published ports at the gateway's address. Root uses a
// [Bridge]. The device /dev/net/tun must be accessible to the user, as it is by default nearly everywhere (mode 0666). The program ends with
// the container, and so with a host program that is killed; that of a detached container, which lives on, and what a host program had only
// begun when it was killed, are ended by caisson.Recover with [Owner].
type Pasta struct {
	// Ports are published on the host, its loopback addresses included. Connections seem to come from the host. Of UDP, pasta before July 2024 loses
	// the answers to programs of the host itself where they ask a loopback address and the port has another number inside, or where they ask one of
	// the host's other addresses and HostAccess is not set.
	Ports []Port
	// Interface is the name of the device inside. Default: eth0.
	Interface string
	// DNS says how names are resolved: by the resolvers given, on port 53, or the host's but for those on loopback addresses. There is
	// no server of ours.
	DNS DNS
	// Hosts are further lines of /etc/hosts.
	Hosts []Host
	// HostAccess lets the container connect to services that listen on the host's loopback addresses, under the address of its
	// gateway.
	HostAccess bool
	// NoFiles leaves /etc/hosts, /etc/hostname and /etc/resolv.conf as they are.
	NoFiles bool
	// Program is the path of pasta. Default: it is looked up in PATH.
	Program string
	// StateDir is where it is noted what runs; see [BridgeConfig].
	StateDir string
	// Journal is as in [BridgeConfig].
	Journal Journal

	mu    sync.Mutex
	ports []Port
}

// Validate reports all faults of the wish at once. Prepare begins with it.
func (p *Pasta) Validate() error {
	faults := []error{validatePorts(p.Ports), (&Networks{DNS: p.DNS, Hosts: p.Hosts}).validateNames()}
	for i, port := range p.Ports {
		if port.Protocol == "sctp" {
			faults = append(faults, fault(fmt.Sprintf("Ports[%d]", i), "pasta carries TCP and UDP; SCTP needs a Bridge"))
		}
	}
	if err := checkDevice(p.Interface); err != nil {
		faults = append(faults, fault("Interface", "%v", err))
	}
	for _, s := range p.DNS.Servers {
		if s.Port() != 53 {
			faults = append(faults, fault("DNS.Servers", "%v: resolv.conf(5) knows port 53 only", s))
		}
	}
	return errors.Join(faults...)
}

// Prepare finds what stands against the wish: a port that is in use, a missing program, /dev/net/tun. The error matches
// [ErrUnsupported] if pasta is not installed; then it matches exec.ErrNotFound, too.
func (p *Pasta) Prepare(ctx context.Context, r Request) (Attachment, error) {
	a, err := p.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.ports = a.ports
	p.mu.Unlock()
	return a, nil
}

// Published returns the ports of the container that was connected last, each alone, with the host's port.
func (p *Pasta) Published() []Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports
}

// pastaAttachment is a container that is connected so. It is a caisson.DurableAttachment.
type pastaAttachment struct {
	wish    *Pasta
	req     Request
	rec     record
	ports   []Port
	program string
	entry   uint64
	durable bool
	release func() // by which the keeper forgets the program; nil where it does not know it
}

// pidFile is where pasta writes its process id. Its name is what tells one from another.
func (r *record) pidFile() string { return r.StateDir + "/pasta-" + r.Pasta + ".pid" }

// Files are those of a [Connection], without the names of others.
func (a *pastaAttachment) Files() []File {
	if a.wish.NoFiles {
		return nil
	}
	var b strings.Builder
	b.WriteString(loopbackHosts)
	if validHost(a.req.Hostname) {
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", a.req.Hostname)
	}
	writeHosts(&b, a.wish.Hosts)
	return append(hostnameFile(a.req.Hostname), File{Path: "/etc/hosts", Data: []byte(b.String()), Mode: 0o644},
		File{Path: "/etc/resolv.conf", Data: []byte(a.resolv().String()), Mode: 0o644})
}

func (a *pastaAttachment) resolv() resolvConf { return resolvFor(a.wish.DNS, false, false) }

// Warnings tells that the container has nobody to ask for names.
func (a *pastaAttachment) Warnings() []Warning {
	if a.wish.NoFiles {
		return nil
	}
	return unresolved(a.resolv())
}

// arguments are those of pasta. Whatever it would do by default to the host's ports is switched off.
func (a *pastaAttachment) arguments(pid int) []string {
	device := a.wish.Interface
	if device == "" {
		device = "eth0"
	}
	args := []string{"--quiet", "--config-net", "--tcp-ports", pastaPorts(a.ports, "tcp"), "--udp-ports", pastaPorts(a.ports, "udp"),
		"--tcp-ns", "none", "--udp-ns", "none", "--ns-ifname", device, "--pid", a.rec.pidFile()}
	if !a.wish.HostAccess {
		args = append(args, "--no-map-gw")
	}
	return append(args, fmt.Sprint(pid))
}

// pastaPorts writes ports as pasta takes them: "8080:80,127.0.0.1/9000:9000", or "none".
func pastaPorts(l []Port, protocol string) string {
	var out []string
	for _, p := range l {
		if p.Protocol != protocol {
			continue
		}
		s := fmt.Sprintf("%d:%d", p.Host, p.Container)
		if p.HostAddr.IsValid() && p.HostAddr != (netip.Addr{}) {
			s = p.HostAddr.String() + "/" + s
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ",")
}
