package cni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/caisson-go/caisson/netns"
)

// Options are what a configuration list does not say. The zero values are sensible.
type Options struct {
	// Path are the directories of the plugins. Default: /opt/cni/bin, /usr/lib/cni, /usr/libexec/cni, /usr/local/lib/cni.
	Path []string
	// Interface is the name of the device inside, at most 15 bytes. Default: eth0.
	Interface string
	// Args are further arguments for the plugins (CNI_ARGS); neither names nor values hold ';' or '='.
	Args map[string]string
	// Ports are published on the host, by a plugin with the capability portMappings; ranges too. Each has a port of the host.
	Ports []netns.Port
	// Capabilities are what plugins take at run time by the names of their capabilities, as JSON: "bandwidth", "ips", "mac", "aliases".
	// A name that no plugin of the list takes is refused.
	Capabilities map[string]any
	// DNS says how names are resolved: by Servers on port 53, else by what the list says, else by the host's resolvers but
	// for those on loopback addresses. There is no server of ours. If that leaves none, [Attachment.Warnings] says so.
	DNS netns.DNS
	// Hosts are further lines of /etc/hosts.
	Hosts []netns.Host
	// NoFiles leaves /etc/hosts, /etc/hostname and /etc/resolv.conf as they are. The container's own address is not in
	// /etc/hosts, for the files are made before the plugins run; its name leads to 127.0.1.1.
	NoFiles bool
	// CacheDir is where results are kept for DEL, in its directory "results", in the form in which other runtimes keep theirs.
	// It belongs to the caller's user alone. Default: /run/caisson/cni for root, $XDG_RUNTIME_DIR/caisson/cni for others.
	CacheDir string
	// Journal records what has to be undone if the program is killed. Default: the journal of this user that
	// caisson.Recover reads.
	Journal netns.Journal
}

// Network is a configuration list with options: one of caisson's networks. It may serve many containers, and is safe for use by many
// goroutines. The plugins act in this program's own network namespace.
type Network struct {
	list *List
	opts Options

	mu   sync.Mutex
	last *Attachment
}

// New checks the options against the list. All faults are reported at once, as errors that match netns.ErrInvalid; nothing of the
// machine is looked at or changed.
func New(list *List, o Options) (*Network, error) {
	if list == nil {
		return nil, &Error{Op: "check", Object: "list", Err: fmt.Errorf("%w: it is nil", netns.ErrInvalid)}
	}
	n := &Network{list: list, opts: o}
	if len(o.Path) == 0 {
		n.opts.Path = defaultPath
	}
	if o.Interface == "" {
		n.opts.Interface = "eth0"
	}
	n.opts.Capabilities = maps.Clone(o.Capabilities)
	if err := n.validate(); err != nil {
		return nil, err
	}
	if len(o.Ports) > 0 {
		if n.opts.Capabilities == nil {
			n.opts.Capabilities = map[string]any{}
		}
		n.opts.Capabilities["portMappings"] = mappings(o.Ports)
	}
	return n, nil
}

func (n *Network) validate() error {
	var faults []error
	add := func(field, format string, args ...any) {
		faults = append(faults, &Error{Op: "check", Object: field, Err: fmt.Errorf("%w: %s", netns.ErrInvalid, fmt.Sprintf(format, args...))})
	}
	o := &n.opts
	for _, p := range o.Path {
		if !filepath.IsAbs(p) || strings.Contains(p, ":") {
			add("Path", "%q is not an absolute path without ':'", p)
		}
	}
	if i := o.Interface; len(i) > 15 || i == "." || i == ".." || i == "lo" || strings.ContainsFunc(i, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == ':' || r == '%' }) {
		add("Interface", "%q cannot be the name of a network device", i)
	}
	for k, v := range o.Args {
		if k == "" || strings.ContainsAny(k+v, ";=\x00") {
			add("Args", "%q: %q", k, v)
		}
	}
	takes := func(capability string) bool {
		return slices.ContainsFunc(n.list.Plugins, func(p Plugin) bool { return slices.Contains(p.Capabilities, capability) })
	}
	for c := range o.Capabilities {
		if !takes(c) {
			add("Capabilities", "no plugin of network %s takes %s", n.list.Name, c)
		}
	}
	if len(o.Ports) > 0 && !takes("portMappings") {
		add("Ports", "no plugin of network %s takes portMappings", n.list.Name)
	}
	for _, p := range o.Ports {
		if p.Container == 0 || p.Host == 0 {
			add("Ports", "%v: both ports are needed", p)
		}
	}
	if o.Capabilities["portMappings"] != nil && len(o.Ports) > 0 {
		add("Ports", "portMappings is among the Capabilities as well")
	}
	if o.CacheDir != "" && !filepath.IsAbs(o.CacheDir) {
		add("CacheDir", "%q is not absolute", o.CacheDir)
	}
	for _, s := range o.DNS.Servers {
		if !s.Addr().IsValid() || s.Port() != 53 {
			add("DNS.Servers", "%v: resolv.conf(5) knows port 53 only", s)
		}
	}
	return errors.Join(faults...)
}

// Name returns the network's name.
func (n *Network) Name() string { return n.list.Name }

// Prepare finds what stands against a container: a missing plugin (netns.ErrNotFound), one that does not know the version of the list
// (netns.ErrUnsupported), one that is not ready ([ErrNotReady]), a missing privilege (netns.ErrPrivilege: CAP_NET_ADMIN and
// CAP_SYS_ADMIN). Nothing is made.
func (n *Network) Prepare(ctx context.Context, r netns.Request) (netns.Attachment, error) {
	a, err := n.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.last = a
	n.mu.Unlock()
	return a, nil
}

// Connect connects any network namespace, and returns what disconnects it. id is the container's, of letters, digits, '_', '.' and '-';
// "" makes one.
func (n *Network) Connect(ctx context.Context, ns *netns.Namespace, id string) (*Attachment, error) {
	a, err := n.prepare(ctx, netns.Request{ID: id})
	if err != nil {
		return nil, err
	}
	if err := a.Attach(ctx, netns.Target{Netns: ns.File()}); err != nil {
		return nil, errors.Join(err, a.Detach(context.WithoutCancel(ctx)))
	}
	return a, nil
}

// Last is the container that was connected last; nil if there was none.
func (n *Network) Last() *Attachment {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last
}

// Status finds out whether containers can be served: whether the plugins are there, know the version of the list, and, from version
// 1.1.0 on, what they say themselves. The error matches [ErrNotReady] if one says no.
func (n *Network) Status(ctx context.Context) error {
	var faults []error
	for i := range n.list.Plugins {
		p := &n.list.Plugins[i]
		err := speaks(ctx, n.opts.Path, p.Type, n.list.Version)
		if err == nil && atLeast(n.list.Version, "1.1.0") {
			err = n.status(ctx, p)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func (n *Network) status(ctx context.Context, p *Plugin) error {
	b, err := n.list.request(p, n.opts.Capabilities, nil, nil)
	if err != nil {
		return err
	}
	c := call{command: "STATUS", path: n.opts.Path}
	if _, err := c.run(ctx, p.Type, b); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return nil
}

// mapping is an element of portMappings.
type mapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

func mappings(ports []netns.Port) (out []mapping) {
	for _, p := range ports {
		for i := range max(1, int(p.Count)) {
			m := mapping{HostPort: int(p.Host) + i, ContainerPort: int(p.Container) + i, Protocol: p.Protocol}
			if m.Protocol == "" {
				m.Protocol = "tcp"
			}
			if p.HostAddr.IsValid() && !p.HostAddr.IsUnspecified() {
				m.HostIP = p.HostAddr.String()
			}
			out = append(out, m)
		}
	}
	return out
}
