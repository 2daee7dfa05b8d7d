package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/caisson-go/caisson/netns"
)

// Result is what the plugins of a list made, see the section "Success" of the specification.
type Result struct {
	Interfaces []Interface
	IPs        []IP
	Routes     []Route
	DNS        DNS

	raw json.RawMessage
}

// Interface is a network device.
type Interface struct {
	Name string `json:"name"`
	MAC  string `json:"mac,omitempty"`
	// Sandbox is the path of the namespace that it is in; "" is the host's.
	Sandbox string `json:"sandbox,omitempty"`
}

// IP is an address that was given to a device.
type IP struct {
	Address netip.Prefix
	Gateway netip.Addr // may be invalid: none
	// Interface is the index in [Result.Interfaces]; -1 if the plugin did not tell.
	Interface int
}

// Route is a route that was made.
type Route struct {
	Dst netip.Prefix
	GW  netip.Addr // may be invalid: that of the address
}

// DNS is what a network says about names.
type DNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// parseResult reads what the last plugin answered.
func parseResult(raw json.RawMessage) (*Result, error) {
	var in struct {
		Interfaces []Interface `json:"interfaces"`
		IPs        []struct {
			Address   string `json:"address"`
			Gateway   string `json:"gateway"`
			Interface *int   `json:"interface"`
		} `json:"ips"`
		Routes []struct {
			Dst string `json:"dst"`
			GW  string `json:"gw"`
		} `json:"routes"`
		DNS DNS `json:"dns"`
	}
	bad := func(err error) (*Result, error) {
		return nil, fmt.Errorf("%w: result: %w", netns.ErrInvalid, err)
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return bad(err)
	}
	r := &Result{Interfaces: in.Interfaces, DNS: in.DNS, raw: raw}
	for _, i := range in.IPs {
		p, err := netip.ParsePrefix(i.Address)
		if err != nil {
			return bad(err)
		}
		ip := IP{Address: p, Interface: -1}
		if i.Gateway != "" {
			if ip.Gateway, err = netip.ParseAddr(i.Gateway); err != nil {
				return bad(err)
			}
		}
		if i.Interface != nil && *i.Interface >= 0 && *i.Interface < len(r.Interfaces) {
			ip.Interface = *i.Interface
		}
		r.IPs = append(r.IPs, ip)
	}
	for _, i := range in.Routes {
		p, err := netip.ParsePrefix(i.Dst)
		if err != nil {
			return bad(err)
		}
		route := Route{Dst: p}
		if i.GW != "" {
			if route.GW, err = netip.ParseAddr(i.GW); err != nil {
				return bad(err)
			}
		}
		r.Routes = append(r.Routes, route)
	}
	return r, nil
}
