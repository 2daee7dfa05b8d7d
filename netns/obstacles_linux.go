package netns

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Obstacles finds chains of other programs that drop what is forwarded unless a rule lets it through: by their policy, as Docker's
// FORWARD does, or by a rule at their end, as firewalld's do. A chain in whose table a rule names the bridge is not among them: whether
// rules let packets pass cannot be told in general, and whoever wrote that one has decided. The chain FORWARD of iptables-legacy, which
// nftables does not show, is judged alike. Attaching a container looks by itself, see [Connection.Obstacles]. It needs CAP_NET_ADMIN.
func (b *Bridge) Obstacles(context.Context) (out []Obstacle, err error) {
	err = b.cfg.inHost(func() error {
		return withRules(ownedKey{}, func(conn *nftables.Conn) error {
			out, err = findObstacles(conn, b.cfg.Bridge, true, true)
			return err
		})
	})
	return out, err
}

// look looks for what is in the way of the connection's networks. It runs in the host's namespace.
func (c *Connection) look() {
	if err := withRules(c.owned(), func(conn *nftables.Conn) error { c.lookBy(conn); return nil }); err != nil {
		c.unseen = err
	}
}

func (c *Connection) lookBy(conn *nftables.Conn) {
	for _, n := range c.states {
		if !n.Kind.ruled() || n.Internal {
			continue
		}
		device := n.Bridge
		if !n.Kind.bridged() {
			device = "cs0" // each endpoint has a device of its own; a rule can name them all by "cs*"
		}
		l, err := findObstacles(conn, device, slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Addr().Is4() }), n.hasIPv6())
		c.obstacles = append(c.obstacles, l...)
		if err != nil {
			c.unseen = err
		}
	}
}

var families = map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet"}

func findObstacles(c *nftables.Conn, device string, four, six bool) (out []Obstacle, err error) {
	listed, err := c.ListChains()
	if err != nil {
		return nil, &Error{Op: "list chains", Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "run as root")}
	}
	for _, f := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet} {
		if f == nftables.TableFamilyIPv4 && !four || f == nftables.TableFamilyIPv6 && !six {
			continue
		}
		chains := slices.DeleteFunc(slices.Clone(listed), func(ch *nftables.Chain) bool { return ch.Table.Family != f })
		for _, ch := range chains {
			if !forwards(ch) || ownTable(ch.Table.Name) {
				continue
			}
			if drops, err := obstructs(c, ch, chains, device); err != nil {
				return nil, &Error{Op: "list rules", Err: privileged(err), Remedy: remedy(err, "CAP_NET_ADMIN", "run as root")}
			} else if !drops {
				continue
			}
			o := Obstacle{Family: families[f], Table: ch.Table.Name, Chain: ch.Name}
			o.Remedy = o.remedy(chains, device)
			out = append(out, o)
		}
	}
	more, err := findLegacy(device, four, six)
	return append(out, more...), err
}

func forwards(c *nftables.Chain) bool {
	return c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Type == nftables.ChainTypeFilter
}

func ownTable(name string) bool { return name == "caisson" || strings.HasPrefix(name, "caisson-") }

// obstructs says that a chain drops what the device forwards, and that no rule of the table is about the device.
func obstructs(c *nftables.Conn, ch *nftables.Chain, chains []*nftables.Chain, device string) (bool, error) {
	drops, err := refuses(c, ch)
	if err != nil || !drops {
		return false, err
	}
	about, err := named(c, chains, ch.Table.Name, device)
	return !about, err
}

// rulesOf lists the rules of a chain; one that is gone has none.
func rulesOf(c *nftables.Conn, ch *nftables.Chain) ([]*nftables.Rule, error) {
	l, err := c.GetRules(ch.Table, ch)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return l, err
}

// refuses says that a chain drops what none of its rules takes.
func refuses(c *nftables.Conn, ch *nftables.Chain) (bool, error) {
	if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
		return true, nil
	}
	l, err := rulesOf(c, ch)
	return slices.ContainsFunc(l, func(r *nftables.Rule) bool { return refusesAll(r.Exprs) }), err
}

// refusesAll is true for a rule without a condition that drops or rejects.
func refusesAll(l []expr.Any) bool {
	end := false
	for _, e := range l {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Verdict:
			end = e.Kind == expr.VerdictDrop
		case *expr.Reject:
			end = true
		default:
			return false
		}
	}
	return end
}

// maxLooked bounds how many chains of a family are looked at.
const maxLooked = 1000

// named says that a rule of the table compares something with the device's name.
func named(c *nftables.Conn, chains []*nftables.Chain, table, device string) (bool, error) {
	for _, ch := range chains[:min(len(chains), maxLooked)] {
		if ch.Table.Name != table {
			continue
		}
		l, err := rulesOf(c, ch)
		if err != nil {
			return false, err
		}
		for _, r := range l {
			for _, e := range r.Exprs {
				if cmp, ok := e.(*expr.Cmp); ok && cmp.Op == expr.CmpOpEq && namesDevice(cmp.Data, device) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// namesDevice is true for the name, which ends with a zero byte, and for the beginning of it, which does not ("cs*").
func namesDevice(data []byte, device string) bool {
	name, _, whole := bytes.Cut(data, []byte{0})
	if whole || len(data) >= 16 {
		return string(name) == device
	}
	return len(name) >= 2 && strings.HasPrefix(device, string(name))
}

// remedy knows the places that programs have for rules of others.
func (o Obstacle) remedy(chains []*nftables.Chain, device string) string {
	has := func(name string) bool {
		return slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name == o.Table && c.Name == name })
	}
	tool := map[string]string{"ip6": "ip6tables"}[o.Family]
	if tool == "" {
		tool = "iptables"
	}
	return o.remedyIn(tool, has, device)
}

// remedyIn is the same for a table of which it can be asked what chains it has, and the tool that made it.
func (o Obstacle) remedyIn(tool string, has func(chain string) bool, device string) string {
	if device == "cs0" {
		device = "cs+"
	}
	switch {
	case has("DOCKER-USER"):
		return "Docker: " + tool + " -I DOCKER-USER -i " + device + " -j ACCEPT, and the same with -o"
	case has("ufw-before-forward") || has("ufw6-before-forward"):
		return "ufw route allow in on " + device + ", and ufw route allow out on " + device
	case o.Table == "firewalld":
		return "firewall-cmd --zone=trusted --add-interface=" + device + ", and the same with --permanent, since a reload forgets the first"
	}
	if o.Legacy {
		return tool + " -I FORWARD -i " + device + " -j ACCEPT, and the same with -o"
	}
	return "a rule in that table that accepts what comes in by " + device + ", and one for what goes out by it"
}
