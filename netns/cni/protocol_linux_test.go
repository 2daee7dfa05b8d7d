package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/netns"
)

// script makes a plugin of a shell script: what the protocol allows plugins to answer is more than those of a distribution do.
func script(t testing.TB, name, body string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := `#!/bin/sh
config=$(cat)
echo "$CNI_COMMAND id=$CNI_CONTAINERID if=$CNI_IFNAME ns=${CNI_NETNS:+yes} args=$CNI_ARGS $config" >>` + dir + `/log
if [ "$CNI_COMMAND" = VERSION ]; then echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}'; exit; fi
` + body
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustParse(t testing.TB, s string) *List {
	t.Helper()
	l, err := Parse([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const answer = `echo '{"cniVersion":"1.1.0","ips":[{"address":"10.1.2.3/24"}],"interfaces":[{"name":"eth0"}]}'`

// What plugins are told, in which order, and with which version.
func TestProtocol(t *testing.T) {
	dir := script(t, "tell", answer)
	l := mustParse(t, `{"cniVersion":"0.4.0","cniVersions":["1.0.0","1.1.0","9.9.9"],"name":"n","plugins":[
	  {"type":"tell","first":1,"capabilities":{"ips":true,"mac":false}}, {"type":"tell","second":2,"capabilities":{"portMappings":true}}]}`)
	if l.Version != "1.1.0" {
		t.Error(l.Version)
	}
	n := newNetwork(t, l, Options{Path: []string{dir}, Args: map[string]string{"B": "2", "A": "1"}, Capabilities: map[string]any{"ips": []string{"10.1.2.3/24"}},
		Ports: []netns.Port{{Container: 80, Host: 8080, Count: 2, Protocol: "udp", HostAddr: netip.MustParseAddr("192.0.2.1")}}})
	ctx := testContext(t)
	c, err := n.Connect(ctx, newNS(t), "one")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Addresses(); len(got) != 1 || got[0] != netip.MustParsePrefix("10.1.2.3/24") || c.Result().IPs[0].Interface != -1 {
		t.Error(got)
	}
	if err := c.Check(ctx); err != nil {
		t.Error(err)
	}
	if _, err := n.GC(ctx, "one"); err != nil {
		t.Error(err)
	}
	if err := c.Detach(ctx); err != nil {
		t.Error(err)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "log"))
	var got []string
	for line := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
		head, body, _ := strings.Cut(line, " {")
		if strings.HasPrefix(line, "VERSION") || strings.HasPrefix(line, "STATUS") {
			continue
		}
		var conf map[string]any
		if err := json.Unmarshal([]byte("{"+body), &conf); err != nil {
			t.Fatal(line, err)
		}
		if conf["name"] != "n" || conf["cniVersion"] != "1.1.0" {
			t.Error(line)
		}
		which := "first"
		if conf["second"] != nil {
			which = "second"
		}
		_, prev := conf["prevResult"]
		runtime, _ := json.Marshal(conf["runtimeConfig"])
		valid, _ := json.Marshal(conf["cni.dev/valid-attachments"])
		got = append(got, fmt.Sprintf("%s %s prev=%v %s %s", head, which, prev, runtime, valid))
	}
	const ports = `{"portMappings":[{"containerPort":80,"hostIP":"192.0.2.1","hostPort":8080,"protocol":"udp"},{"containerPort":81,"hostIP":"192.0.2.1","hostPort":8081,"protocol":"udp"}]}`
	const ips = `{"ips":["10.1.2.3/24"]}`
	const who = "id=one if=eth0 ns=yes args=A=1;B=2"
	want := []string{
		"ADD " + who + " first prev=false " + ips + " null", "ADD " + who + " second prev=true " + ports + " null",
		"CHECK " + who + " first prev=true " + ips + " null", "CHECK " + who + " second prev=true " + ports + " null",
		`GC id= if= ns= args= first prev=false null [{"containerID":"one","ifname":"eth0"}]`, `GC id= if= ns= args= second prev=false null [{"containerID":"one","ifname":"eth0"}]`,
		"DEL " + who + " second prev=true " + ports + " null", "DEL " + who + " first prev=true " + ips + " null",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What plugins answer instead of a result.
func TestAnswers(t *testing.T) {
	const one = `{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"p"}]}`
	for what, tt := range map[string]struct {
		list, body string
		is         error
		code       uint
		text       string
	}{
		"error":       {one, `[ $CNI_COMMAND != ADD ] || { echo '{"code":7,"msg":"no","details":"because"}'; exit 1; }`, nil, 7, "no: because (code 7)"},
		"not ready":   {one, `[ $CNI_COMMAND != STATUS ] || { echo '{"code":50,"msg":"later"}'; exit 1; }`, ErrNotReady, 50, "later"},
		"stderr":      {one, `[ $CNI_COMMAND != ADD ] || { echo oh >&2; exit 3; }`, nil, 0, "oh"},
		"no JSON":     {one, `echo hello`, netns.ErrInvalid, 0, "result"},
		"no address":  {one, `echo '{"ips":[{"address":"x"}]}'`, netns.ErrInvalid, 0, "ParsePrefix"},
		"too much":    {one, `[ $CNI_COMMAND != ADD ] || head -c 5000000 /dev/zero`, netns.ErrInvalid, 0, "more than"},
		"no plugin":   {strings.Replace(one, `"p"`, `"q"`, 1), ``, netns.ErrNotFound, 0, "containernetworking-plugins"},
		"old version": {strings.Replace(one, "1.1.0", "0.3.1", 1), ``, netns.ErrUnsupported, 0, "0.3.1"},
	} {
		t.Run(what, func(t *testing.T) {
			dir := script(t, "p", tt.body)
			n := newNetwork(t, mustParse(t, tt.list), Options{Path: []string{dir}})
			_, err := n.Connect(testContext(t), newNS(t), "x")
			var p *PluginError
			switch {
			case err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text):
				t.Error(err)
			case tt.code != 0 && (!errors.As(err, &p) || p.Code != tt.code):
				t.Errorf("%+v", p)
			}
			if l, _ := filepath.Glob("/run/caisson/cni/results/*"); len(l) > 0 {
				t.Error("left:", l)
			}
		})
	}
}

// DEL that fails is tried again.
func TestDelAgain(t *testing.T) {
	dir := script(t, "p", `[ $CNI_COMMAND != DEL ] || [ -e `+"$0.ok"+` ] || { echo '{"code":11,"msg":"try again"}'; exit 1; }
`+answer)
	n := newNetwork(t, mustParse(t, `{"cniVersion":"1.0.0","name":"n","type":"p"}`), Options{Path: []string{dir}})
	ctx := testContext(t)
	c, err := n.Connect(ctx, newNS(t), "x")
	if err != nil {
		t.Fatal(err)
	}
	var p *PluginError
	if err := c.Detach(ctx); !errors.As(err, &p) || p.Code != 11 {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "p.ok"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	owner, version, data := c.Record()
	if owner != Owner().Name() {
		t.Error(owner)
	}
	if err := Owner().Undo(ctx, version, data); err != nil {
		t.Error(err)
	}
	if err := c.Detach(ctx); err != nil {
		t.Error(err)
	}
}

// Of two that would connect the same container at once, the second is refused, and to undo it does nothing to the first.
func TestSameContainer(t *testing.T) {
	dir := script(t, "p", answer)
	n := newNetwork(t, mustParse(t, `{"cniVersion":"1.0.0","name":"n","type":"p"}`), Options{Path: []string{dir}})
	ctx := testContext(t)
	var both []*Attachment
	for range 2 { // nothing stands against either
		a, err := n.Prepare(ctx, netns.Request{ID: "x"})
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, a.(*Attachment))
	}
	first, second := both[0], both[1]
	if err := first.Attach(ctx, netns.Target{Netns: newNS(t).File()}); err != nil {
		t.Fatal(err)
	}
	if err := second.Attach(ctx, netns.Target{Netns: newNS(t).File()}); !errors.Is(err, netns.ErrExists) {
		t.Error("the same container:", err)
	}
	_, version, data := second.Record()
	if err := errors.Join(second.Detach(ctx), Owner().Undo(ctx, version, data)); err != nil {
		t.Error(err)
	}
	if err := first.Check(ctx); err != nil {
		t.Error("after the second was undone:", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || strings.Count(string(b), "ADD ") != 1 || strings.Count(string(b), "DEL ") != 0 {
		t.Errorf("%s %v", b, err)
	}
	if err := first.Detach(ctx); err != nil {
		t.Error(err)
	}
	if l, _ := filepath.Glob("/run/netns/*"); len(l) > 0 {
		t.Errorf("left: %q", l)
	}
}

// A plugin that hangs ends with the context.
func TestHangs(t *testing.T) {
	dir := script(t, "p", `[ $CNI_COMMAND != ADD ] || exec sleep 1000`)
	n := newNetwork(t, mustParse(t, `{"cniVersion":"1.0.0","name":"n","type":"p"}`), Options{Path: []string{dir}})
	ctx, cancel := context.WithCancel(testContext(t))
	a, err := n.Prepare(ctx, netns.Request{ID: "x", Hostname: "host"})
	if err != nil {
		t.Fatal(err)
	}
	files := a.Files()
	if len(files) != 3 || !strings.Contains(string(files[1].Data), "127.0.1.1\thost\n") {
		t.Error(files)
	}
	done := make(chan error)
	go func() { done <- a.Attach(ctx, netns.Target{Netns: newNS(t).File()}) }()
	for range 1000 {
		if b, _ := os.ReadFile(filepath.Join(dir, "log")); strings.Contains(string(b), "ADD ") {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := a.Detach(testContext(t)); err != nil {
		t.Error(err)
	}
	if n.Last() != a {
		t.Error("not the last")
	}
}
