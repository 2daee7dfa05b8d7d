package cni

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/caisson-go/caisson/netns"
)

func TestParse(t *testing.T) {
	for what, tt := range map[string]struct {
		text string
		want error
	}{
		"no JSON":     {`{`, netns.ErrInvalid},
		"empty":       {`{}`, netns.ErrInvalid},
		"no plugins":  {`{"name":"a","cniVersion":"1.0.0","plugins":[]}`, netns.ErrInvalid},
		"no name":     {`{"cniVersion":"1.0.0","type":"x"}`, netns.ErrInvalid},
		"bad name":    {`{"name":"../a","cniVersion":"1.0.0","type":"x"}`, netns.ErrInvalid},
		"bad type":    {`{"name":"a","cniVersion":"1.0.0","type":"../../bin/sh"}`, netns.ErrInvalid},
		"no type":     {`{"name":"a","cniVersion":"1.0.0","plugins":[{}]}`, netns.ErrInvalid},
		"no version":  {`{"name":"a","type":"x"}`, netns.ErrUnsupported},
		"old version": {`{"name":"a","cniVersion":"0.2.0","type":"x"}`, netns.ErrUnsupported},
		"bad truth":   {`{"name":"a","cniVersion":"1.0.0","disableCheck":"perhaps","type":"x"}`, netns.ErrInvalid},
		"one":         {`{"name":"a","cniVersion":"1.0.0","disableCheck":"True","type":"x"}`, nil},
		"list":        {`{"name":"a","cniVersion":"0.3.1","disableGC":true,"plugins":[{"type":"x","capabilities":{"ips":true}}]}`, nil},
	} {
		l, err := Parse([]byte(tt.text))
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil && (l.Name != "a" || len(l.Plugins) != 1 || l.DisableCheck == l.DisableGC) {
			t.Errorf("%s: %+v", what, l)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"a","cniVersion":"0.3.1","disableGC":true,"plugins":[{"type":"x","capabilities":{"ips":true}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			return
		}
		for i := range l.Plugins {
			if _, err := l.request(&l.Plugins[i], nil, nil, nil); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"ips":[{"address":"10.1.2.3/24","interface":0,"gateway":"10.1.2.1"}],"interfaces":[{"name":"eth0"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseResult(b)
		if err != nil {
			return
		}
		for _, ip := range r.IPs {
			if ip.Interface >= len(r.Interfaces) || !ip.Address.IsValid() {
				t.Errorf("%+v", r)
			}
		}
	})
}

func TestReadDir(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"10-b.conflist": `{"name":"b","cniVersion":"1.0.0","type":"x"}`, "20-a.conf": `{"name":"a","cniVersion":"1.0.0","type":"x"}`, "00-bad.conf": `{`, "x.txt": `{`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"": "b", "a": "a"} {
		if l, err := ReadDir(dir, name); err != nil || l.Name != want {
			t.Error(l, err)
		}
	}
	if _, err := ReadDir(dir, "c"); !errors.Is(err, netns.ErrNotFound) || !errors.Is(err, netns.ErrInvalid) {
		t.Error(err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none")); !errors.Is(err, netns.ErrNotFound) {
		t.Error(err)
	}
}

func TestNew(t *testing.T) {
	l, err := Parse([]byte(`{"name":"a","cniVersion":"1.0.0","type":"x","capabilities":{"portMappings":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]Options{
		"path": {Path: []string{"bin"}}, "interface": {Interface: "a/b"}, "long": {Interface: "0123456789abcdef"}, "args": {Args: map[string]string{"A": "1;B=2"}},
		"capability": {Capabilities: map[string]any{"mac": "x"}}, "port": {Ports: []netns.Port{{Container: 80}}}, "cache": {CacheDir: "x"},
		"dns": {DNS: netns.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:54")}}},
	} {
		if _, err := New(l, o); !errors.Is(err, netns.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := New(nil, Options{}); !errors.Is(err, netns.ErrInvalid) {
		t.Error(err)
	}
	n, err := New(l, Options{DNS: netns.DNS{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, Search: []string{"example"}}})
	if err != nil || n.Name() != "a" {
		t.Fatal(err)
	}
	if got := n.resolvConf().resolvConf(); got != "nameserver 192.0.2.1\nsearch example\n" {
		t.Errorf("%q", got)
	}
}

func TestRecord(t *testing.T) {
	for _, bad := range []string{`{`, `{"dir":"x"}`, `{"dir":"/x/../y"}`, `{"dir":"/x","network":"a","container":"../b","interface":"eth0","namespace":"n"}`} {
		if _, err := decodeRecord(recordVersion, []byte(bad)); !errors.Is(err, netns.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := decodeRecord(9, nil); !errors.Is(err, netns.ErrInvalid) {
		t.Error(err)
	}
}
