package image

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// need skips a test of a program that is not there.
func need(t testing.TB, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("no " + program + " on this machine: install the package " + program)
	}
}

// registryIP is a loopback address of this program's own: the port that is free is so until the registry has it, whatever other programs do meanwhile.
var registryIP = net.IPv4(127, byte(64+os.Getpid()>>16&63), byte(os.Getpid()>>8), byte(os.Getpid()))

// distribution starts Debian's registry server, with what the configuration says besides, and returns where it is.
func distribution(t *testing.T, more string) string {
	t.Helper()
	need(t, "docker-registry")
	dir := t.TempDir()
	l, err := net.Listen("tcp", net.JoinHostPort(registryIP.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	config := "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp:\n  addr: " + addr + "\n" + more
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
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(end) {
			t.Fatalf("the registry does not start: %v\n%s", err, &out)
		}
	}
}

// pushAndPull sends an image to a registry and fetches it into another store.
func pushAndPull(t *testing.T, addr string, o RegistryOptions) {
	t.Helper()
	ctx := context.Background()
	s := openStore(t, Options{})
	img := putImage(t, s, "a", plain(randomLayer2(t, 3<<20)), plain(layer(t, file("x", "x"))))
	name := addr + "/team/app:1"
	var sent, cached int
	progress := func(p Progress) {
		if p.Done == p.Total && p.Cached {
			cached++
		} else if p.Done == p.Total {
			sent++
		}
	}
	serial := func(n string) error {
		sent, cached = 0, 0
		s.limits.Parallel = 1
		return s.Push(ctx, "a", n, PushOptions{RegistryOptions: o, Progress: progress, MountFrom: []string{"team/app"}})
	}
	if err := serial(name); err != nil || sent < 3 {
		t.Fatalf("%v, %d blobs sent", err, sent)
	}
	if err := serial(addr + "/team/app:2"); err != nil || sent != 0 || cached != 3 {
		t.Errorf("%v, %d blobs sent again", err, sent)
	}
	if err := serial(addr + "/other/app:2"); err != nil {
		t.Errorf("mounted from another repository: %v", err)
	}
	to := openStore(t, Options{})
	for _, n := range []string{name, addr + "/other/app:2", addr + "/team/app@" + img.Descriptor.Digest.String()} {
		if got, err := to.Pull(ctx, n, PullOptions{RegistryOptions: o}); err != nil || got.Descriptor.Digest != img.Descriptor.Digest {
			t.Errorf("%s: %v, %v", n, got, err)
		}
	}
	if f, err := to.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
	if err := s.Push(ctx, "nothing", name, PushOptions{RegistryOptions: o}); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestDistribution(t *testing.T) {
	pushAndPull(t, distribution(t, ""), RegistryOptions{Anonymous: true})
}

func TestDistributionLogin(t *testing.T) {
	need(t, "docker-registry")
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("me:$2y$04$69Kr6VmL9sdT165KTPBvce7aT8pqoEbVTPOEhYphBwkTHSKi3E8q2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := distribution(t, "auth: {htpasswd: {realm: test, path: "+users+"}}\n")
	pushAndPull(t, addr, RegistryOptions{Credentials: func(context.Context, string) (string, string, error) { return "me", "secret", nil }})
	s := openStore(t, Options{})
	putImage(t, s, "a", plain(layer(t, file("x", "x"))))
	for _, o := range []RegistryOptions{{Anonymous: true}, {Credentials: func(context.Context, string) (string, string, error) { return "me", "wrong", nil }}} {
		if err := s.Push(context.Background(), "a", addr+"/team/app:1", PushOptions{RegistryOptions: o}); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("push: %v", err)
		}
		if _, err := s.Pull(context.Background(), addr+"/team/app:1", PullOptions{RegistryOptions: o}); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("pull: %v", err)
		}
	}
}

func TestDistributionTLS(t *testing.T) {
	need(t, "docker-registry")
	dir := t.TempDir()
	pool := certificate(t, dir)
	addr := distribution(t, fmt.Sprintf("  tls: {certificate: %s/cert.pem, key: %s/key.pem}\n", dir, dir))
	pushAndPull(t, addr, RegistryOptions{Anonymous: true, TLS: &tls.Config{RootCAs: pool}})
	s := openStore(t, Options{})
	if _, err := s.Pull(context.Background(), addr+"/team/app:1", PullOptions{RegistryOptions: RegistryOptions{Anonymous: true, Attempts: 1}}); err == nil {
		t.Error("an unknown authority was trusted")
	}
}

// certificate writes a certificate for the registry's address that signs itself.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{registryIP}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(dir+"/cert.pem", cert, 0o600), os.WriteFile(dir+"/key.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kder}), 0o600)); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// tool runs a program and returns what it says.
func tool(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// What skopeo writes is read here, and what is written here is read by skopeo: as a layout, as archives, over a registry.
func TestSkopeo(t *testing.T) {
	need(t, "skopeo")
	ctx := context.Background()
	s := openStore(t, Options{})
	img := putImage(t, s, "a:1", plain(randomLayer2(t, 1<<20)), plain(layer(t, file("x", "x"), file(".wh.gone", ""))))
	dir := t.TempDir()
	if out := tool(t, "skopeo", "inspect", "oci:"+s.dir+":docker.io/library/a:1"); !strings.Contains(out, img.Descriptor.Digest.String()) {
		t.Errorf("the store as skopeo sees it: %s", out)
	}
	if err := os.WriteFile(dir+"/ours.tar", saved(t, s, "a:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	policy := "--insecure-policy"
	tool(t, "skopeo", policy, "copy", "oci-archive:"+dir+"/ours.tar:docker.io/library/a:1", "oci:"+dir+"/layout:b:2")
	tool(t, "skopeo", policy, "copy", "docker-archive:"+dir+"/ours.tar:docker.io/library/a:1", "docker-archive:"+dir+"/docker.tar:c:3")
	tool(t, "skopeo", policy, "copy", "oci:"+dir+"/layout:b:2", "oci-archive:"+dir+"/oci.tar:d:4")
	to := openStore(t, Options{})
	must[[]Image](t)(to.LoadLayout(ctx, dir+"/layout", LoadOptions{}))
	for _, f := range []string{"docker.tar", "oci.tar"} {
		data := must[[]byte](t)(os.ReadFile(dir + "/" + f))
		must[[]Image](t)(to.Load(ctx, bytes.NewReader(data), LoadOptions{}))
	}
	if got := fmt.Sprint(names(t, to)); got != "[docker.io/library/b:2 docker.io/library/c:3 docker.io/library/d:4]" {
		t.Error(got)
	}
	for _, n := range []string{"b:2", "c:3", "d:4"} {
		if u, err := to.Unpack(ctx, n, UnpackOptions{}); err != nil || len(u.Dirs) != 2 || fmt.Sprint(u.Config.DiffIDs) != fmt.Sprint(must[*Info](t)(s.Inspect(ctx, "a:1", nil)).Config.DiffIDs) {
			t.Errorf("%s: %v, %v", n, u, err)
		}
	}
	if f, err := to.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
}

func TestSkopeoRegistry(t *testing.T) {
	need(t, "skopeo")
	addr := distribution(t, "")
	ctx := context.Background()
	s := openStore(t, Options{})
	img := putImage(t, s, "a:1", plain(randomLayer2(t, 1<<20)))
	o := RegistryOptions{Anonymous: true}
	if err := s.Push(ctx, "a:1", addr+"/ours:1", PushOptions{RegistryOptions: o}); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "skopeo", "inspect", "--tls-verify=false", "docker://"+addr+"/ours:1"); !strings.Contains(out, img.Descriptor.Digest.String()) {
		t.Error(out)
	}
	tool(t, "skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "oci:"+s.dir+":docker.io/library/a:1", "docker://"+addr+"/theirs:1")
	to := openStore(t, Options{})
	must[Image](t)(to.Pull(ctx, addr+"/theirs:1", PullOptions{RegistryOptions: o}))
	if u, err := to.Unpack(ctx, addr+"/theirs:1", UnpackOptions{}); err != nil || len(u.Dirs) != 1 {
		t.Errorf("%v, %v", u, err)
	}
}

// umoci makes an image of two layers; it is read, and what it deletes is deleted.
func TestUmoci(t *testing.T) {
	need(t, "umoci")
	ctx := context.Background()
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/in/sub", 0o755), os.WriteFile(dir+"/in/sub/f", []byte("f"), 0o644)); err != nil {
		t.Fatal(err)
	}
	l := dir + "/layout"
	tool(t, "umoci", "init", "--layout", l)
	tool(t, "umoci", "new", "--image", l+":tag")
	tool(t, "umoci", "insert", "--rootless", "--image", l+":tag", dir+"/in", "/in")
	tool(t, "umoci", "insert", "--rootless", "--image", l+":tag", "--whiteout", "/in/sub/f")
	s := openStore(t, Options{})
	images := must[[]Image](t)(s.LoadLayout(ctx, l, LoadOptions{}))
	if images[0].Name != "localhost/layout:tag" {
		t.Errorf("%v", images)
	}
	u := must[*Unpacked](t)(s.Unpack(ctx, "localhost/layout:tag", UnpackOptions{}))
	if len(u.Dirs) != 2 || !isWhiteout(lstat(t, u.Dirs[0]+"/in/sub/f")) {
		t.Errorf("%v", u.Dirs)
	}
	if got := must[[]byte](t)(os.ReadFile(u.Dirs[1] + "/in/sub/f")); string(got) != "f" {
		t.Errorf("%q", got)
	}
}
