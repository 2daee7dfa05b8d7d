//go:build linux

package examples_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// project is a build context with a store of its own, and a base image in it.
type project struct {
	caller
	t     *testing.T
	store string
	ctx   string
}

// baseFiles is a root filesystem of busybox: /lib is a link, as on merged-usr systems, and one file is another user's.
func baseFiles(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "etc", "usr", "usr/lib", "var", "run", "root"} {
		add(tar.Header{Name: d + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "usr/lib"}, nil)
	add(tar.Header{Name: "var/run", Typeflag: tar.TypeSymlink, Linkname: "/run"}, nil)
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, staticShell(t))
	for _, a := range []string{"sh", "cat", "ls", "id", "echo", "env", "rm", "mkdir", "touch", "test", "stat", "chmod", "chown", "ln", "sleep", "wc", "tr", "find", "grep", "date", "mv", "cp"} {
		add(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nstaff:x:50:app\napp:x:1001:\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newProject makes a context of files (a name that ends with a slash is a directory) and enters "base:1" in a new store.
func newProject(t *testing.T, c caller, files map[string]string) *project {
	t.Helper()
	p := &project{caller: c, t: t, store: filepath.Join(c.dir, "store"), ctx: filepath.Join(c.dir, "context")}
	p.own(os.MkdirAll(p.ctx, 0o755), p.ctx)
	p.files(files)
	// A base image needs no tool but this one: the files are a context.
	base := filepath.Join(c.dir, "base")
	p.own(os.MkdirAll(base, 0o755), base)
	p.own(os.WriteFile(filepath.Join(base, "root.tar"), baseFiles(t), 0o644), filepath.Join(base, "root.tar"))
	p.own(os.WriteFile(filepath.Join(base, "Dockerfile"), []byte("FROM scratch\nADD root.tar /\nENV PATH=/bin KIND=base\nCMD [\"sh\"]\n"), 0o644), filepath.Join(base, "Dockerfile"))
	c.run(t, "build", "-store", p.store, "-build-arg", "SOURCE_DATE_EPOCH=1", "-t", "base:1", base).want(t, 0, `^sha256:`)
	return p
}

func (p *project) own(err error, name string) {
	p.t.Helper()
	if err == nil && os.Getuid() == 0 {
		err = os.Lchown(name, p.uid, p.uid)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) files(files map[string]string) {
	p.t.Helper()
	for name, text := range files {
		file := filepath.Join(p.ctx, name)
		for _, d := range []string{filepath.Dir(filepath.Dir(file)), filepath.Dir(file)} {
			p.own(os.MkdirAll(d, 0o755), d)
		}
		if strings.HasSuffix(name, "/") {
			p.own(os.MkdirAll(file, 0o755), file)
			continue
		}
		p.own(os.WriteFile(file, []byte(text), 0o644), file)
	}
}

// build builds with a Dockerfile of this text; RUN has no network, so that the tests need none.
func (p *project) build(dockerfile string, args ...string) result {
	p.t.Helper()
	p.files(map[string]string{"Dockerfile": dockerfile})
	return p.run(p.t, "build", append([]string{"-store", p.store, "-network", "none", "-t", "out:1", p.ctx}, args...)...)
}

// steps counts the lines of progress that end a step in a way.
func steps(r result, end string) int {
	return len(regexp.MustCompile(`(?m)^#\d+ `+end).FindAllString(r.stderr, -1))
}

func TestBuildDemonstration(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		args := []string{"-store", filepath.Join(c.dir, "store")}
		first := c.run(t, "build", args...)
		first.want(t, 0, `^sha256:[0-9a-f]{64}$`)
		first.wantErr(t, 0, `I am process 1, and write /greeting`)
		again := c.run(t, "build", args...)
		again.want(t, 0, regexp.QuoteMeta(first.stdout))
		if n := steps(again, "CACHED"); n != 3 {
			t.Errorf("%d cached steps, want 3: %v", n, again)
		}
	})
}

func TestBuildStages(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, map[string]string{"src/a": "one", "src/deep/b": "two", ".dockerignore": "secret*\n", "secret.txt": "x"})
		const dockerfile = `
ARG BASE=base:1
FROM ${BASE} AS first
ARG NAME=nobody
WORKDIR /job
COPY src/ in/
RUN cat in/a in/deep/b > out && echo $NAME >> out && rm /bin/touch && test ! -e /secret.txt
FROM first AS unused
RUN exit 1
FROM base:1
COPY --from=first --chown=12:34 --chmod=640 /job/out /result/
ENTRYPOINT ["sh", "-c"]
CMD ["cat /result/out; stat -c '%u:%g %a' /result/out; ls -a /result; echo $KIND"]
`
		p.build(dockerfile, "-build-arg", "NAME=somebody").want(t, 0, `^sha256:`)
		run := c.run(t, "run", "-q", "-store", p.store, "-image", "out:1")
		run.want(t, 0, `^onetwosomebody$`, `^base$`)
		if c.root() {
			run.want(t, 0, `^12:34 640$`)
		}
		again := p.build(dockerfile, "-build-arg", "NAME=somebody")
		again.want(t, 0, `^sha256:`)
		if cached, done := steps(again, "CACHED"), steps(again, "DONE"); cached != 4 || done != 2 {
			t.Errorf("%d steps cached and %d done, want 4 and the 2 FROM: %v", cached, done, again)
		}
		p.files(map[string]string{"src/a": "1"})
		changed := p.build(dockerfile, "-build-arg", "NAME=somebody")
		if cached := steps(changed, "CACHED"); changed.code != 0 || cached != 1 {
			t.Errorf("after a change of a file %d steps are cached, want 1, the WORKDIR: %v", cached, changed)
		}
		p.build(dockerfile, "-target", "unused").wantErr(t, 1, `^\S*Dockerfile:9: \["/bin/sh" "-c" "exit 1"\]: .*1`, `^>    9 \| RUN exit 1$`)
	})
}

// archived reads an archive of files: by name, the header and the content.
func archivedFiles(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	out := map[string]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(h.Name, "/")] = fmt.Sprintf("%c %o %d:%d %s%s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, data)
	}
}

// TestBuildSecrets: what a secret held is neither in a layer, nor in the config, nor in the cache.
func TestBuildSecrets(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, nil)
		token := filepath.Join(c.dir, "token")
		p.own(os.WriteFile(token, []byte("sEcReT-3141592"), 0o600), token)
		r := p.build(`FROM base:1
RUN --mount=type=secret,id=token grep -q 3141592 /run/secrets/token && echo $(wc -c < /run/secrets/token) bytes
RUN --mount=type=secret,id=token,target=/etc/own,mode=0444 grep -q 3141592 /etc/own
RUN --mount=type=secret,id=token,env=TOKEN test "${TOKEN#*-}" = 3141592
RUN test ! -e /run/secrets && test ! -e /etc/own && test -z "$TOKEN"
`, "-secret", "id=token,src="+token)
		r.want(t, 0, `^sha256:`)
		r.wantErr(t, 0, `14 bytes`)
		out := filepath.Join(c.dir, "files.tar")
		c.run(t, "build", "-store", p.store, "-network", "none", "-secret", "id=token,src="+token, p.ctx, "-o", "type=tar,dest="+out).want(t, 0, `^sha256:`)
		if found, _ := exec.Command("grep", "-rl", "sEcReT-3141592", p.store, p.store+"-build", out).CombinedOutput(); len(found) > 0 {
			t.Errorf("the secret is in %s", found)
		}
		f, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for name, what := range archivedFiles(t, f) {
			if strings.Contains(what, "sEcReT-3141592") || strings.HasPrefix(name, "run/") || name == "etc/own" || name == "proc" || name == "dev" || name == "sys" {
				t.Errorf("the image has %s: %s", name, what)
			}
		}
		p.build("FROM base:1\nRUN --mount=type=secret,id=none,required true\n").wantErr(t, 1, `Dockerfile:2: .*secret "none" is required`)
	})
}

// TestBuildReproducible: the same files make the same image, whatever the time and the user.
func TestBuildReproducible(t *testing.T) {
	digests := map[string]bool{}
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, map[string]string{"a": "x"})
		for range 2 {
			r := p.build("FROM base:1\nCOPY a /a\nRUN echo b > /b; mkdir /c; rm /bin/mv\nWORKDIR /d\nRUN echo $SOURCE_DATE_EPOCH\n", "-no-cache", "-build-arg", "SOURCE_DATE_EPOCH=1000000000")
			r.want(t, 0, `^sha256:`)
			digests[r.stdout] = true
		}
		if len(digests) != 1 {
			t.Errorf("different digests: %v", digests)
		}
	})
}

// TestBuildHostile: a context leads nowhere but into itself.
func TestBuildHostile(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, map[string]string{"in": "inside", "secret.txt": "x", ".dockerignore": "secret.txt"})
		outside := filepath.Join(c.dir, "outside")
		p.own(os.WriteFile(outside, []byte("outside"), 0o644), outside)
		for name, to := range map[string]string{"abs": outside, "rel": "../outside", "up": "..", "hidden": "secret.txt", "loop": "loop"} {
			p.own(os.Symlink(to, filepath.Join(p.ctx, name)), filepath.Join(p.ctx, name))
		}
		for _, bad := range []string{"COPY abs /x", "COPY rel /x", "COPY up/outside /x", "COPY ../outside /x", "COPY secret.txt /x", "COPY hidden /x",
			"COPY loop /x", "RUN --mount=type=bind,source=abs,target=/x cat /x", "RUN --mount=type=bind,source=../outside,target=/x cat /x",
			"COPY --from=base:1 /nothing /x", "COPY in", "COPY in abs /x", "ADD --chmod=9 in /x", "COPY --from=later in /x\nFROM base:1 AS later",
			"RUN --network=host true", "RUN --security=insecure true", "FROM", "NOSUCH x", "COPY --from=0 / /x\nRUN --mount=type=bind,from=nowhere.invalid/x,target=/x true"} {
			r := p.build("FROM base:1\n"+bad+"\n", "-target", "0")
			r.wantErr(t, 1, `Dockerfile:[23]: `)
			if strings.Contains(r.stderr, "outside\n") && strings.Contains(r.stderr, "#3 0") {
				t.Errorf("%s: %v", bad, r)
			}
		}
		p.build("FROM base:1\nCOPY . /all\nRUN cd /all && ls -a && test ! -e secret.txt && test \"$(cat in)\" = inside\n").want(t, 0, `^sha256:`)
	})
}

// TestBuildAdd: archives are extracted whatever they are compressed with, URLs fetched, and what leads out is refused.
func TestBuildAdd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dir/file.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
		io.WriteString(w, "fetched")
	}))
	defer server.Close()
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("fetched")))
	archive := tarball(t, []string{"d/", "d/f", "g"}, map[string][]byte{"d/f": []byte("f"), "g": []byte("g")})
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(archive)
	z.Close()
	evil := map[string]tar.Header{"up.tar": {Name: "../x", Typeflag: tar.TypeReg}, "wh.tar": {Name: "bin/.wh.sh", Typeflag: tar.TypeReg},
		"link.tar": {Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}, "none.tar": {Name: "l", Typeflag: tar.TypeLink, Linkname: "etc/passwd"}}
	asEach(t, func(t *testing.T, c caller) {
		files := map[string]string{"a.tar": string(archive), "a.tgz": zipped.String(), "text.gz": "\x1f\x8bnot really", "plain": "plain"}
		for name, h := range evil {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			if err := errors.Join(w.WriteHeader(&h), w.Close()); err != nil {
				t.Fatal(err)
			}
			files[name] = b.String()
		}
		p := newProject(t, c, files)
		p.build("FROM base:1\nADD a.tar /one/\nADD --chown=5:6 a.tgz two\nADD text.gz plain /three/\nADD --checksum="+sum+" "+server.URL+"/dir/file.txt /four/\nADD --unpack=false a.tar /five/\n"+
			"RUN cat one/d/f two/g three/plain && test -f three/text.gz && test \"$(cat four/file.txt)\" = fetched && test \"$(stat -c '%a %Y' four/file.txt)\" = '600 1000000000' && test -f five/a.tar\n").want(t, 0, `^sha256:`)
		for bad, want := range map[string]string{"up.tar /": `leads out of the archive`, "wh.tar /": `begins with .wh.`, "link.tar /": `leads out of the archive`, "none.tar /": `no file of the archive`,
			server.URL + "/none /x": `404`, "--checksum=sha256:00 " + server.URL + "/dir/file.txt /x": `the content is sha256`, "--checksum=" + sum + " plain /x": `for a single URL`,
			server.URL + "/ /x/": `404|names no file`, "https://example.invalid/x.git /x": `clones no repositories`} {
			p.build("FROM base:1\nADD "+bad+"\n").wantErr(t, 1, `Dockerfile:2: .*(`+want+`)`)
		}
	})
}

// TestBuildInstructions: what instructions leave in the config, and what those of a base image start.
func TestBuildInstructions(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, map[string]string{"trigger": "t"})
		asApp := ""
		if c.root() { // another has no ids for it here
			asApp = "RUN test \"$(id -u):$(id -g)\" = 1000:1001 && test \"$HOME\" = /srv && test \"$PWD\" = /sub/dir\n"
		}
		p.build(`FROM base:1
ONBUILD COPY trigger /trigger
ONBUILD RUN touch /ran
SHELL ["/bin/sh", "-e", "-c"]
USER app
WORKDIR sub
WORKDIR dir
`+asApp+`ENV A=1 B="two words"
LABEL l=$A
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT exec sh
MAINTAINER somebody
`, "-label", "m=2", "-t", "parent:1", "-o", "type=oci,dest="+filepath.Join(c.dir, "oci.tar")).want(t, 0, `^sha256:`)
		config := imageConfig(t, filepath.Join(c.dir, "oci.tar"))
		for key, want := range map[string]string{"User": `"app"`, "WorkingDir": `"/sub/dir"`, "Env": `["PATH=/bin","KIND=base","A=1","B=two words"]`, "Labels": `{"l":"1","m":"2"}`,
			"ExposedPorts": `{"53/udp":{},"80/tcp":{}}`, "Volumes": `{"/data":{}}`, "StopSignal": `"SIGQUIT"`, "Healthcheck": `{"Test":["CMD-SHELL","true"],"Interval":5000000000}`, "Entrypoint": `["/bin/sh","-e","-c","exec sh"]`, "Cmd": ``,
			"Shell": `["/bin/sh","-e","-c"]`, "OnBuild": `["COPY trigger /trigger","RUN touch /ran"]`} {
			if got := string(config[key]); got != want {
				t.Errorf("%s is %s, want %s", key, got, want)
			}
		}
		p.build("FROM base:1\nSTOPSIGNAL NOPE\n").wantErr(t, 1, `^\S*Dockerfile:2: .*"NOPE" is no signal`)
		p.build("FROM base:1\nSTOPSIGNAL 65\n").wantErr(t, 1, `^\S*Dockerfile:2: .*"65" is no signal`)
		p.build("FROM base:1\nUSER root\n", "-t", "plain:1").want(t, 0, `^sha256:`)
		p.build("FROM parent:1\nUSER root\nRUN test -f /trigger\n").wantErr(t, 1, `Dockerfile:1: ONBUILD RUN touch`) // as app, who may not
		p.build("FROM base:1\nONBUILD COPY trigger /trigger\nONBUILD RUN touch /ran\n", "-t", "parent:2").want(t, 0, `^sha256:`)
		p.build("FROM parent:2\nRUN test -f /trigger && test -f /ran\n", "-o", "type=oci,dest="+filepath.Join(c.dir, "oci.tar")).want(t, 0, `^sha256:`)
		if left, ok := imageConfig(t, filepath.Join(c.dir, "oci.tar"))["OnBuild"]; ok {
			t.Errorf("a trigger is left: %s", left)
		}
	})
}

// TestBuildPath: a base image that says nothing of PATH has the one that its containers have, which an ENV can add to.
func TestBuildPath(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, nil)
		c.run(t, "run", "-q", "-store", p.store, "-image", "archive:"+imageArchive(t, c)).want(t, 0, `^hello from`)
		p.build("FROM greet:1\nENV MORE=1 PATH=$PATH:/more\nUSER 0\nRUN echo $PATH >/seen\n", "-o", "type=oci,dest="+filepath.Join(c.dir, "oci.tar")).want(t, 0, `^sha256:`)
		const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/more"
		if got, want := string(imageConfig(t, filepath.Join(c.dir, "oci.tar"))["Env"]), `["GREETING=hello","PATH=`+path+`","MORE=1"]`; got != want {
			t.Errorf("Env is %s, want %s", got, want)
		}
		c.run(t, "run", "-q", "-store", p.store, "-image", "out:1", "--", "read p </seen; echo $p; echo $PATH").want(t, 0, `^`+path+`\n`+path+`$`)
	})
}

// imageConfig reads the member "config" of the config of an image in an archive.
func imageConfig(t *testing.T, archive string) map[string]json.RawMessage {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("no config in %s: %v", archive, err)
		}
		var doc struct {
			Rootfs *json.RawMessage
			Config map[string]json.RawMessage
		}
		if h.Size < 1<<20 && json.NewDecoder(tr).Decode(&doc) == nil && doc.Rootfs != nil {
			return doc.Config
		}
	}
}

// TestBuildMounts: what RUN --mount shows, what stays of it and what does not.
func TestBuildMounts(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, map[string]string{"src/a": "A", "hidden": "x", ".dockerignore": "hidden"})
		p.build(`FROM base:1 AS other
RUN mkdir -p /o/deep && echo one > /o/one
RUN echo two > /o/deep/two; rm /bin/mv
FROM base:1
WORKDIR /w
RUN --mount=type=bind,target=/ctx test "$(cat /ctx/src/a)" = A && test ! -e /ctx/hidden && ! touch /ctx/x
RUN --mount=type=bind,source=src/a,target=file test "$(cat file)" = A
RUN --mount=type=bind,source=src,target=/rw,rw echo changed > /rw/a && touch /rw/new
RUN --mount=type=bind,source=src,target=/rw test "$(cat /rw/a)" = A && test ! -e /rw/new
RUN --mount=type=bind,from=other,source=/o,target=/o test "$(cat /o/one /o/deep/two)" = "$(echo one; echo two)"
RUN --mount=type=bind,from=other,target=/all test -f /all/o/one && test ! -e /all/bin/mv && test -e /all/bin/sh
RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x
RUN --mount=type=cache,target=/cache,id=k echo 1 >> /cache/n
RUN --mount=type=cache,target=/cache,id=k,sharing=locked echo 2 >> /cache/n && test "$(cat /cache/n | tr -d '\n')" = 12
RUN --mount=type=cache,target=/cache,from=other,source=/o test -f /cache/deep/two
RUN test ! -e /ctx && test ! -e /rw && test ! -e /o && test ! -e /all && test ! -e /t && test ! -e /cache && test ! -e file
`).want(t, 0, `^sha256:`)
		if left, _ := filepath.Glob(p.store + "-build/tmp/*"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// TestBuildKilled: what a killed build leaves is removed by the next one, which goes on where that was.
func TestBuildKilled(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		p := newProject(t, c, nil)
		p.files(map[string]string{"Dockerfile": "FROM base:1\nRUN echo first > /first\nRUN echo begun && sleep 1000\n"})
		cmd := c.command(t, "build", "-store", p.store, "-network", "none", p.ctx)
		var errs lockedBuffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		errs.await(t, " begun\n")
		cmd.Process.Kill()
		cmd.Wait()
		r := p.build("FROM base:1\nRUN echo first > /first\nRUN true\n")
		r.want(t, 0, `^sha256:`)
		if steps(r, "CACHED") != 1 {
			t.Errorf("the first RUN was not kept: %v", r)
		}
		for range 500 { // the container ends with its program, but not in the same moment
			left, _ := filepath.Glob(p.store + "-build/tmp/*")
			if len(left) == 0 {
				return
			}
			time.Sleep(20 * time.Millisecond)
			p.build("FROM base:1\n").want(t, 0, `^sha256:`)
		}
		t.Error("the directory of the killed build is still there")
	})
}
