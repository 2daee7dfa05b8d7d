// Package netns makes network namespaces, and networks that connect them: to each other, to the host and to the world. It is
// useful without the rest of caisson; a container is joined to its networks by caisson.WithNetwork, which takes each [Network]
// and [*Networks].
//
// # A container on a network
//
//	web, err := netns.NewBridge(netns.BridgeConfig{Name: "web"})
//	...
//	n := &netns.Networks{Endpoints: []netns.Endpoint{{Network: web, Ports: []netns.Port{{Container: 80, Host: 8080}}}}}
//	c, err := caisson.New(caisson.WithID("server"), caisson.WithNetwork(n), ...)
//
// The first container makes the bridge, the last one that is closed takes it away. Containers of one network reach each other,
// by address and by name: "server" here. They reach the world with the host's address. Nothing outside reaches them but by the
// ports that are published. Containers of different networks do not reach each other, and none reaches the host's own
// services unless [BridgeConfig.HostAccess] lets them.
//
// Beside a [Bridge] there are other kinds of networks. A [Routed] connects each container to the host alone, point to point. A [LAN]
// connects containers to the network of a device of the host, by macvlan, ipvlan or 802.1Q. A [Device] is moved into a container and
// given back. A [Tun] ends in a file of this program. An [Overlay] spans several hosts. One container may be on networks of several kinds: each is a [Network],
// and an [Endpoint] of [Networks].
//
// Other choices need no network of this package: without WithNetwork a container has a loopback device and nothing else,
// namespaces.Host() shares the host's, and namespaces.JoinPath joins one that has a name. An ordinary user connects a
// container to the world by [Pasta].
//
// A container that runs is connected to further networks by [Networks.Join]; so are its later runs.
//
// A [Pool] keeps namespaces ready that are connected already, for who cannot wait for one to be made: a container is put into one by
// namespaces.JoinFile.
//
// # What is changed on the host
//
//   - A bridge for each network, and a device for each endpoint, whose names begin with "cs".
//   - One table "inet caisson" in nftables, of a fixed number of rules: see [BridgeConfig]. Tables and rules of others are
//     neither read nor changed.
//   - For endpoints with an egress policy a table "bridge caisson".
//   - For an endpoint whose upload is limited a device whose name begins with "ci", and a chain in the table "netdev caisson".
//   - net.ipv4.ip_forward, and net.ipv6.conf.all.forwarding if a network has IPv6, if they were off. Devices that take router
//     advertisements (accept_ra 1) get 2 with it, without which the host would lose its own default route. The kernel itself sets
//     net.ipv4.conf.all.accept_redirects and the setting "forwarding" of each device with it, and switches off large receive offload (LRO).
//     All these settings get their values back, but for LRO.
//     A network that is Internal needs none of it. [Bridge.Changes] tells what was changed.
//   - Files below /run/caisson/netns, and a mount there for each container that has a device without an end on the host: it keeps the
//     container's namespace until the device is taken away, or given back.
//
// All of it goes with the last container. It is recorded before it is done: after a program was killed, the next program that
// connects a container undoes it, and so does caisson.Recover with [Owner]. Nothing depends on one program: several may use the same network at once, and each finds what others
// reserved.
//
// Who comes while forwarding is on finds it on, and may rely on it without having switched it on: Docker, podman, libvirt. So it stays on after the last
// container, with what goes with it, if there is a rule that masquerades (or a source translation), or a bridge with an address, that was not there when it was
// switched on: of another program, or of this package with another [BridgeConfig.StateDir]. What relies on it otherwise, such as a router without
// translation, cannot be seen, and has to switch it on for good (sysctl.d(5)) before: what was on is never switched off.
//
// # Beside other programs' rules
//
// In nftables a packet has to pass the chains of all tables, and one that drops it is final. Docker sets the policy of its
// chain FORWARD to drop, firewalld and ufw may do so as well. Then packets of these networks are dropped too, and no rule of
// ours can change that without touching theirs. Attaching looks for such chains: [Connection.Obstacles] has them, and a caisson.Container has them
// in its Isolation and its log. Where bridges hand packets to these rules (br_netfilter, which Docker
// switches on), neighbours are cut off from each other as well. What lets packets pass is then a rule in the other
// program's own place.
//
// What was seen with the programs of Debian 12 (Docker 20.10, firewalld 1.3, ufw 0.36, each with its defaults) beside a bridge with NAT, a published port and
// an egress policy:
//
//   - Docker, if it was started before anything had switched IP forwarding on: IPv4 from containers to the world and to published ports, from outside to published
//     ports, and between neighbours (br_netfilter) is dropped. Two rules let it pass, "iptables -I DOCKER-USER -i cs-web -j ACCEPT" and the same with -o; they
//     outlast a restart of Docker, though not of the machine. Docker that is started later drops nothing of ours.
//   - firewalld: containers do not reach the world, nor neighbours (br_netfilter); published ports are reached, from outside and inside.
//     "firewall-cmd --zone=trusted --add-interface=cs-web" lets all pass until the next reload, and with --permanent once more also after it.
//   - ufw: as with Docker, and IPv6 too. "ufw route allow in on cs-web" and "ufw route allow out on cs-web" outlast "ufw reload", and ufw off and on again.
//
// The host itself reaches containers and published ports beside all three, and an egress policy holds. A restart of Docker, "firewall-cmd --reload" and
// --complete-reload, "ufw reload" and "ufw disable" leave our tables as they are, and our start and end leave theirs. Who loads all rules afresh ("nft flush
// ruleset", the service nftables) takes the table away that all programs share: it is made again when a container is connected, and until then there is no
// NAT; ports that a living program publishes stay.
//
// # A hostile container
//
// It may be root in its network namespace and send any frame. It does not reach the host's services, by no address of a bridge (without [BridgeConfig.HostAccess]; ICMP is answered), nor other networks;
// neither the host nor a neighbour takes routes or prefixes from it (router advertisements); what the host routes for it, and begins a connection, is dropped if its source address is not
// routed to a network of this package (Linux 6.10 or a backport of it, such as 6.9.4 and 6.1.93; others let it pass); names are asked for from the host, past its neighbours. That says nothing
// of what a [Bridge] with a Parent or an [Overlay] carries to neighbours elsewhere, of a [LAN], [Device] or [Tun], nor of the host's own answer to a ping. On its own bridge it can do
// what a machine on an Ethernet can: pretend to be a neighbour or the gateway, by ARP, neighbour discovery, redirects or a hardware address, answer DHCP, tag frames, flood.
// [Endpoint.Egress] holds it to its addresses, [Endpoint.Limits] bounds the flood, a [Routed] has no neighbours.
// What no network of this package prevents: filling the kernel's table of connections, and forged packets that fit a connection by guess, without the host's setting rp_filter.
//
// # Published ports
//
// On the host's addresses a port is published by an entry in a map of nftables: packets keep their source address. Connections to
// 127.0.0.1 and ::1 are carried by the program (a proxy), because the kernel does not let packets with such addresses leave the
// loopback device; route_localnet, which would, is never set. So the loopback addresses answer for as long as the
// program runs, the others also after, for a detached container. The monitor of a detached container
// (caisson.WithMonitor) carries them, and serves names, as long as the container runs: whatever happens to the program that started it.
//
// What is carried so stays in the kernel (splice(2)), but each part of it passes this program: that costs processor time, which small requests notice most.
// Who wants none of it uses an address of the host that is no loopback address, or the container's.
//
// # Privileges
//
// A [Pasta] needs no privilege, and an ordinary user has namespaces ([New]) and sockets in them ([Namespace.Dial]). Other networks need CAP_NET_ADMIN over the host's network namespace, and CAP_SYS_ADMIN to enter those of containers. Root of a user
// namespace has both in the network namespaces made in it. Linux 5.14, nf_tables with inet, nat and fib, bridge, veth. On other systems every function answers
// an error that matches [ErrUnsupported].
package netns
