package caisson_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The embedder: what a program has that runs a directory with limits.
const embedder = `package main

import (
	"context"
	"fmt"
	"os"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/rootfs"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Println("usage: embed ROOTFS COMMAND [ARG...]")
		os.Exit(2)
	}
	c, err := caisson.New(
		caisson.WithRootfs(rootfs.Dir(os.Args[1])), caisson.WithCommand(os.Args[2], os.Args[3:]...),
		caisson.WithMemory(64<<20), caisson.WithCPUs(0.5), caisson.WithPids(100), caisson.WithStdio())
	if err == nil {
		defer c.Close()
		err = c.Run(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
`

const hello = `package main

import "fmt"

func main() { fmt.Println("hello") }
`

const modulePath = "github.com/caisson-go/caisson"

// limits of what an embedder takes on.
const (
	maxModules = 20
	maxBytes   = 5_000_000
)

// TestEmbed builds a module outside of this one that uses caisson from a module archive, without replace and
// without go.work, and judges what it links.
func TestEmbed(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: builds programs")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command here")
	}
	root := moduleRoot(t)
	const version = "v0.0.1"
	proxy := t.TempDir()
	writeProxy(t, proxy, root, version)

	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.org/embed\n\ngo "+goLine(t, root)+"\n\nrequire "+modulePath+" "+version+"\n")
	write("main.go", embedder)
	write("hello/main.go", hello)
	run := func(args ...string) string {
		t.Helper()
		return goCommand(t, dir, proxy, args...)
	}
	run("mod", "tidy")
	if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err != nil || strings.Contains(string(mod), "replace") {
		t.Errorf("go.mod: %v\n%s", err, mod)
	}
	run("build", "-trimpath", "-ldflags=-s -w", "-o", "embed", ".")
	run("build", "-trimpath", "-ldflags=-s -w", "-o", "hello.out", "./hello")

	big, small := size(t, dir, "embed"), size(t, dir, "hello.out")
	t.Logf("%d bytes over a program that prints hello (%d over %d)", big-small, big, small)
	if big-small > maxBytes {
		t.Errorf("%d bytes over a program that prints hello; at most %d", big-small, maxBytes)
	}
	modules := linkedModules(run("list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", "."))
	t.Logf("%d modules linked: %s", len(modules), strings.Join(modules, ", "))
	if len(modules) > maxModules {
		t.Errorf("%d modules are linked; at most %d", len(modules), maxModules)
	}
	packages := strings.Fields(run("list", "-deps", "."))
	for _, bad := range []string{"net/http", "crypto/tls", "google.golang.org/protobuf/reflect/protoreflect", "os/user", "html/template", "text/template"} {
		if slices.Contains(packages, bad) {
			t.Errorf("%s is linked", bad)
		}
	}
	out, err := exec.Command(filepath.Join(dir, "embed")).Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.HasPrefix(string(out), "usage:") {
		t.Errorf("the program without arguments: %v, %q", err, out)
	}
}

// moduleRoot finds the directory of this module; it must be a checkout.
func moduleRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Skip("the module's source is not here: ", err)
	}
	return root
}

func goLine(t *testing.T, root string) string {
	t.Helper()
	c := exec.Command("go", "mod", "edit", "-json")
	c.Dir = root
	out, err := c.Output()
	var mod struct{ Go string }
	if err == nil {
		err = json.Unmarshal(out, &mod)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mod.Go
}

// goCommand runs the go command as someone would who knows nothing of this checkout: caisson comes from a proxy in a
// directory, other modules from the user's cache or from where they always come from. What is loaded goes to a cache of
// the test's own, so that the archive does not get into the user's.
func goCommand(t *testing.T, dir, proxy string, args ...string) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOPROXY", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	user := strings.Fields(string(out))
	cache := filepath.Join(dir, ".cache")
	t.Cleanup(func() {
		_ = filepath.WalkDir(cache, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(path, 0o755) // the go command makes them read-only
			}
			return nil
		})
	})
	c := exec.Command("go", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod", "GOSUMDB=off", "GOMODCACHE="+cache,
		"GOPROXY=file://"+proxy+",file://"+filepath.Join(user[len(user)-1], "cache", "download")+","+user[0])
	var stderr bytes.Buffer
	c.Stderr = &stderr
	text, err := c.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(text)
}

func size(t *testing.T, dir, name string) int64 {
	t.Helper()
	st, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func linkedModules(text string) []string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	all = slices.DeleteFunc(all, func(s string) bool { return strings.TrimSpace(s) == "" || strings.HasPrefix(s, "example.org/") })
	slices.Sort(all)
	return slices.Compact(all)
}

// writeProxy lays a module out as a module proxy serves it: a list, its description, its go.mod and its archive.
func writeProxy(t *testing.T, proxy, root, version string) {
	t.Helper()
	dir := filepath.Join(proxy, filepath.FromSlash(modulePath), "@v")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	info := fmt.Sprintf("{\"Version\":%q,\"Time\":%q}\n", version, time.Now().UTC().Format(time.RFC3339))
	for name, data := range map[string][]byte{"list": []byte(version + "\n"), version + ".info": []byte(info), version + ".mod": mod,
		version + ".zip": archive(t, root, modulePath+"@"+version+"/")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// archive makes the module's archive: every file that is under version control, or would be, without nested modules.
func archive(t *testing.T, root, prefix string) []byte {
	t.Helper()
	c := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	c.Dir = root
	out, err := c.Output()
	if err != nil {
		t.Skip("not a git checkout: ", err)
	}
	names := strings.Split(strings.Trim(string(out), "\x00"), "\x00")
	var nested []string
	for _, n := range names {
		if d := filepath.Dir(n); filepath.Base(n) == "go.mod" && d != "." {
			nested = append(nested, d+"/")
		}
	}
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, n := range names {
		if slices.ContainsFunc(nested, func(d string) bool { return strings.HasPrefix(n, d) }) {
			continue
		}
		st, err := os.Lstat(filepath.Join(root, n))
		if err != nil || !st.Mode().IsRegular() {
			continue // deleted, or a link, which archives of modules do not have
		}
		data, err := os.ReadFile(filepath.Join(root, n))
		if err == nil {
			w, werr := z.Create(prefix + n)
			if err = werr; err == nil {
				_, err = w.Write(data)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
