//go:build linux

package examples_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/testutil"
)

// distribution starts Debian's registry server at an address of this program's own, and returns where it is.
func distribution(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Skip("no docker-registry on this machine: install the package docker-registry")
	}
	pid, dir := os.Getpid(), t.TempDir()
	l, err := net.Listen("tcp", net.JoinHostPort(net.IPv4(127, byte(128+pid>>16&63), byte(pid>>8), byte(pid)).String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	config := "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp: {addr: \"" + addr + "\"}\n"
	if err := os.WriteFile(dir+"/config.yml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", dir+"/config.yml")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(testutil.Time(2 * time.Minute)); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("the registry does not start: %v\n%s", err, &out)
		}
	}
}

// TestBuildTable: one build for each row, and what it says or why it fails.
func TestBuildTable(t *testing.T) {
	netns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, nil)
		base := p.build("FROM base:1\nRUN echo digest > /which\n", "-t", "known:1")
		base.want(t, 0, `^sha256:`)
		digest := strings.TrimSpace(base.stdout)
		const meet = `RUN --mount=type=cache,target=/c,id=meet touch /c/%s; n=0; until test -e /c/%s; do n=$((n+1)); test $n -lt 6000 || exit 1; sleep 0.05; done; echo %[1]s > /%[1]s` + "\n"
		for name, b := range map[string]struct {
			file string
			args []string
			want string // of a command that then sees the files, or of the error if it begins with !
		}{
			"RUN heredoc":             {"FROM base:1\nENV W=word\nRUN <<E\necho one $W > /out\necho two >> /out\nE\n", nil, "one word\ntwo\n"},
			"RUN heredoc, script":     {"FROM base:1\nRUN <<E\n#!/bin/busybox sh\necho $0 > /out\nE\n", nil, "/dev/pipes/E\n"},
			"RUN heredoc, input":      {"FROM base:1\nRUN cat > /out <<E\ninput\nE\n", nil, "input\n"},
			"RUN heredoc, fails":      {"FROM base:1\nRUN <<E\nset -e\nfalse\necho late > /out\nE\n", nil, `!Dockerfile:2: `},
			"COPY heredoc":            {"FROM base:1\nENV W=word\nCOPY <<E /out\nfirst $W\nE\n", nil, "first word\n"},
			"COPY heredoc, verbatim":  {"FROM base:1\nENV W=word\nCOPY <<'E' /out\nfirst $W\nE\n", nil, "first $W\n"},
			"COPY heredoc, two":       {"FROM base:1\nCOPY --chmod=600 <<a <<b /d/\nx\na\ny\nb\nRUN cat d/a d/b > /out; stat -c %a d/b >> /out\n", nil, "x\ny\n600\n"},
			"ADD heredoc":             {"FROM base:1\nADD <<E /out\nadded\nE\n", nil, "added\n"},
			"heredoc without end":     {"FROM base:1\nRUN <<E\nx\n", nil, `!Dockerfile:2: .*heredoc`},
			"FROM by digest":          {"FROM known@" + digest + "\nRUN cat /which > /out\n", nil, "digest\n"},
			"FROM by name and digest": {"FROM known:1@" + digest + "\nRUN cat /which > /out\n", nil, "digest\n"},
			"platform":                {"FROM --platform=$BUILDPLATFORM base:1 AS x\nRUN true\nFROM scratch\nARG TARGETPLATFORM TARGETARCH TARGETOS TARGETVARIANT\nCOPY <<E /out\n$TARGETPLATFORM $TARGETOS $TARGETARCH $TARGETVARIANT\nE\n", []string{"-platform", "linux/arm/v7"}, "linux/arm/v7 linux arm v7\n"},
			"network=none":            {"FROM base:1\nRUN --network=none ls -l /proc/self/ns/net && ! ls -l /proc/self/ns/net | grep -qF '" + netns + "' && echo alone > /out\n", []string{"-network", "host"}, "alone\n"},
			"network=default":         {"FROM base:1\nRUN --network=default ls -l /proc/self/ns/net | grep -F '" + netns + "' && echo given > /out\n", []string{"-network", "host"}, "given\n"},
			"network=host, allowed":   {"FROM base:1\nRUN --network=host ls -l /proc/self/ns/net | grep -F '" + netns + "' && echo host > /out\n", []string{"-network", "host"}, "host\n"},
			"network=host":            {"FROM base:1\nRUN --network=host true\n", nil, `!allow it with -network host`},
			"network, no such":        {"FROM base:1\nRUN --network=moon true\n", nil, `!Dockerfile:2: `},
			"mount, no such type":     {"FROM base:1\nRUN --mount=type=z true\n", nil, `!Dockerfile:2: .*type`},
			"stages side by side": {"FROM base:1 AS a\n" + fmt.Sprintf(meet, "a", "b") + "FROM base:1 AS b\n" + fmt.Sprintf(meet, "b", "a") +
				"FROM base:1\nCOPY --from=a /a /\nCOPY --from=b /b /\nRUN cat a b > /out\n", nil, "a\nb\n"},
		} {
			t.Run(name, func(t *testing.T) {
				out := filepath.Join(c.dir, "table.tar")
				r := p.build(b.file, append([]string{"-o", "type=tar,dest=" + out}, b.args...)...)
				if fault, ok := strings.CutPrefix(b.want, "!"); ok {
					r.wantErr(t, 1, fault)
					return
				}
				r.want(t, 0, `^sha256:`)
				f, err := os.Open(out)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				_, got, _ := strings.Cut(archivedFiles(t, f)["out"], " ")
				_, got, _ = strings.Cut(got, " ")
				if _, got, _ = strings.Cut(got, " "); got != b.want {
					t.Errorf("%q, want %q", got, b.want)
				}
			})
		}
	})
}

// TestBuildPushMounts: what the registry has of the base image, or was sent a moment ago under another name, is not sent again.
func TestBuildPushMounts(t *testing.T) {
	to := &url.URL{Scheme: "http", Host: distribution(t)}
	var mu sync.Mutex
	sent, mounted := map[string][]string{}, map[string][]string{} // digests, by repository
	srv := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			repo, _, _ := strings.Cut(strings.TrimPrefix(r.Request.URL.Path, "/v2/"), "/blobs/")
			mu.Lock()
			defer mu.Unlock()
			for param, list := range map[string]map[string][]string{"digest": sent, "mount": mounted} {
				if d := r.Request.URL.Query().Get(param); d != "" && r.StatusCode == http.StatusCreated {
					list[repo] = append(list[repo], d)
				}
			}
			return nil
		},
	})
	t.Cleanup(srv.Close)
	c := caller{os.Getuid(), ownDir(t, os.Getuid())}
	p := newProject(t, c, map[string]string{"a": "A", "b": "B"})
	at := func(name string) string { return srv.Listener.Addr().String() + "/" + name }
	build := func(dockerfile string, args ...string) {
		p.files(map[string]string{"Dockerfile": dockerfile})
		c.run(t, "build", append([]string{"-store", p.store, "-push", p.ctx}, args...)...).want(t, 0, `^sha256:`)
	}
	build("FROM base:1\nCOPY a /a\n", "-t", at("team/base:1"))
	build("FROM "+at("team/base:1")+" AS first\nFROM first\nCOPY b /b\n", "-t", at("team/app:1"), "-t", at("other/app:1"))
	mu.Lock()
	defer mu.Unlock()
	for repo, want := range map[string][2]int{"team/base": {3, 0}, "team/app": {2, 2}, "other/app": {0, 4}} { // a config each
		if len(sent[repo]) != want[0] || len(mounted[repo]) != want[1] {
			t.Errorf("%s: %q were sent, %q taken over", repo, sent[repo], mounted[repo])
		}
	}
	for _, d := range mounted["team/app"] {
		if !slices.Contains(sent["team/base"], d) {
			t.Errorf("%s is not of the base", d)
		}
	}
}

// TestBuildOutputs: the result as a directory, as an archive that docker load reads, and in a registry.
func TestBuildOutputs(t *testing.T) {
	addr := distribution(t)
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, map[string]string{"a": "A"})
		at := func(name string) string { return filepath.Join(c.dir, name) }
		name := fmt.Sprintf("%s/team/app%d:1", addr, c.uid)
		p.files(map[string]string{"Dockerfile": "FROM base:1\nCOPY a /new/a\nRUN rm /etc/group && ln /new/a /new/b\nCMD [\"cat\", \"/new/b\"]\n"})
		r := c.run(t, "build", "-store", p.store, "-network", "none", "-t", name, "-push", "-o", at("dir"), "-o", "type=docker,dest="+at("docker.tar"), "-iidfile", at("id"), p.ctx)
		r.want(t, 0, `^sha256:`)
		if b, err := os.ReadFile(at("id")); err != nil || strings.TrimSpace(string(b)) != strings.TrimSpace(r.stdout) {
			t.Errorf("-iidfile: %q, %v", b, err)
		}
		if b, err := os.ReadFile(at("dir/new/b")); err != nil || string(b) != "A" {
			t.Errorf("in the directory: %q, %v", b, err)
		}
		for _, gone := range []string{"etc/group", "etc/.wh.group"} {
			if _, err := os.Lstat(at("dir/" + gone)); err == nil {
				t.Errorf("the directory has %s", gone)
			}
		}
		again := c.run(t, "build", "-store", p.store, "-network", "none", "-o", at("dir"), p.ctx)
		again.wantErr(t, 1, `dir is not empty`)
		manifest, err := exec.Command("tar", "-xOf", at("docker.tar"), "manifest.json").CombinedOutput()
		if err != nil || !strings.Contains(string(manifest), `"`+name+`"`) {
			t.Errorf("the archive that docker load reads: %s, %v", manifest, err)
		}
		// The archive and what was pushed run from stores of their own.
		c.run(t, "run", "-q", "-store", at("one"), "-image", "archive:"+at("docker.tar")).want(t, 0, `^A$`)
		c.run(t, "run", "-q", "-store", at("two"), "-image", name).want(t, 0, `^A$`)
		if n := validate(t, p.store); n < 10 { // those of the cache too
			t.Errorf("%d documents", n)
		}
		c.run(t, "build", "-store", p.store, "-push", p.ctx).wantErr(t, 2, `-push needs -t`)
	})
}
