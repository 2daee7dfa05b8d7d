package caisson_test

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/caisson-go/caisson"

// mayImport says which packages of this module each package may import: the walls of docs/architecture.md. What is
// not listed may import nothing of it. "." is the root package. .golangci.yaml says the same to editors.
var mayImport = map[string][]string{
	"internal/linux":    {},
	"internal/program":  {"internal/linux"},
	"internal/ahead":    {},
	"internal/codec":    {},
	"internal/caps":     {},
	"internal/dbus":     {},
	"internal/journal":  {},
	"internal/logs":     {},
	"internal/netdev":   {"internal/linux"},
	"internal/resctrl":  {"internal/linux"},
	"internal/travel":   {},
	"internal/seccomp":  {"internal/caps"},
	"internal/landlock": {},
	"internal/erofs":    {},
	"internal/stage":    {"internal/linux", "internal/program"},
	"internal/state":    {"internal/codec", "internal/journal", "internal/linux"},
	// The leaves are useful alone, so they import neither each other nor the root.
	"namespaces": {"internal/linux", "internal/program", "internal/stage", "internal/caps", "internal/journal"},
	"cgroups":    {"internal/dbus", "internal/linux", "internal/journal", "internal/ahead", "internal/program", "internal/stage"},
	"rootfs":     {"internal/linux", "internal/ahead", "internal/program"},
	// Devices by name, for who asks for them: no other package links it.
	"rootfs/cdi": {"rootfs"},
	"netns":      {"internal/journal", "internal/ahead", "internal/program", "internal/stage"},
	// Networks made by other programs, for who has them: netns does not link it.
	"netns/cni": {"internal/journal", "netns"},
	// Encryption between hosts, for who wants it.
	"netns/wireguard": {"netns"},
	// An image is a root filesystem, so it speaks of itself in the terms of that package. Its files get their owners in a user namespace
	// where the caller is an ordinary user.
	"image": {"internal/erofs", "internal/linux", "namespaces", "rootfs"},
	// The root takes networks and images as interfaces, so that who does not use them does not link them.
	".": {"cgroups", "internal/caps", "internal/codec", "internal/journal", "internal/landlock", "internal/linux", "internal/logs", "internal/netdev", "internal/program", "internal/resctrl", "internal/seccomp", "internal/stage", "internal/state", "internal/travel", "namespaces", "rootfs"},

	"internal/seccomp/gen":         {"internal/caps", "internal/seccomp"},
	"internal/seccomp/gen/filters": {"internal/caps", "internal/seccomp"},
	"internal/testutil":            {".", "internal/stage"},
	"internal/testutil/old":        {"internal/seccomp"},
	"internal/testutil/kills":      {"internal/journal", "internal/testutil"},
	// Benchmarks build the same container in C and as an OCI bundle, for which they compile the default filter.
	"bench":         {".", "cgroups", "image", "internal/caps", "internal/linux", "internal/seccomp", "internal/testutil", "namespaces", "netns", "rootfs"},
	"bench/oneshot": {".", "rootfs"},
	// Tests of containers with networks: neither package knows the other.
	"internal/nettest":          {".", "cgroups", "image", "namespaces", "netns", "netns/cni", "rootfs"},
	"internal/nettest/rootless": {"netns"},
	// Tests of containers and images: neither package knows the other.
	"internal/imagetest": {".", "image", "namespaces", "rootfs"},
	// For the tests of embedders.
	"caissontest": {".", "cgroups", "internal/program", "internal/stage", "internal/testutil", "rootfs"},
}

// modules are what the product may import from outside, with the reason. An embedder's program links them.
var modules = map[string]string{
	"golang.org/x/sys":                       "system calls and constants that package syscall lacks",
	"github.com/opencontainers/runtime-spec": "the types of seccomp profiles, which others produce",
}

// netModules are linked by who uses netns, and by nobody else.
var netModules = map[string]string{
	"github.com/vishvananda/netlink": "devices, addresses and routes (rtnetlink)",
	"github.com/google/nftables":     "rules of packet filters, without the nft program",
	"golang.org/x/net":               "the format of DNS messages",
	// What those need.
	"github.com/vishvananda/netns": "by vishvananda/netlink",
	"github.com/mdlayher/netlink":  "by google/nftables",
	"github.com/mdlayher/socket":   "by mdlayher/netlink",
	"golang.org/x/sync":            "by mdlayher/socket",
	"github.com/google/go-cmp":     "by tests of those",
}

// imageModules are linked by who uses images, and by nobody else.
var imageModules = map[string]string{
	"github.com/opencontainers/image-spec": "the types of manifests, indexes and configs",
	"github.com/opencontainers/go-digest":  "the type of digests, which those types use",
	"github.com/klauspost/compress":        "gzip faster than the standard library's, and zstd, which that lacks",
	"golang.org/x/sync":                    "layers side by side, within a bound of memory",
	"oras.land/oras-go/v2":                 "the conversation with registries: tokens, credential helpers, uploads",
}

// cdiModules are linked by who uses devices by name, and by nobody else.
var cdiModules = map[string]string{
	"sigs.k8s.io/yaml":   "descriptions of devices in YAML, as vendors write them",
	"go.yaml.in/yaml/v2": "by sigs.k8s.io/yaml",
}

// toolModules are imported by generators and tests only. They stand in go.mod, and nobody links them.
var toolModules = map[string]string{
	"github.com/moby/profiles/seccomp": "source of the default seccomp profile, at generation time",
	"golang.org/x/net":                 "a second implementation of classic BPF, in tests of the compiler",
}

// unwanted packages are large, or do things when they are imported. They must not come in by way of others.
var unwanted = map[string]string{
	"net/http":                               "2 MB, and no container needs it",
	"crypto/tls":                             "comes with net/http",
	"text/template":                          "turns off the linker's removal of unused methods",
	"google.golang.org/protobuf":             "reflection, 3 MB",
	"testing":                                "registers flags",
	"plugin":                                 "needs cgo",
	"C":                                      "the library needs no C compiler",
	module + "/internal/testutil":            "is for tests",
	module + "/internal/resctrl/resctrltest": "is for tests",
	module + "/image":                        "the root takes an interface",
	module + "/netns":                        "the root takes an interface",
}

// TestArchitectureNamesFiles: docs/architecture.md has a line for every package of the library, and what it names is there.
func TestArchitectureNamesFiles(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("`([a-z_]+(?:/[a-z_]+)*(?:/|\\.go))`").FindAllSubmatch(text, -1) {
		name := string(m[1])
		_, err := os.Stat(name)
		if _, inner := os.Stat("internal/testutil/" + name); err != nil && inner != nil {
			t.Errorf("%s is named: %v", name, err)
		}
	}
	for dir := range mayImport {
		if top := strings.Split(dir, "/"); top[0] == "internal" { // what is below is the package's own
			dir = path.Join(top[0], top[1])
		}
		if top, _, _ := strings.Cut(dir, "/"); dir != "." && top != "bench" && !bytes.Contains(text, []byte("`"+dir)) {
			t.Errorf("nothing is said of %s", dir)
		}
	}
}

func TestImports(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (file == "examples" || file == "bench/containerdstats" || file == "bin" || d.Name() == "testdata" || len(file) > 1 && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(file, ".go"):
			return nil
		}
		seen++
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, file, p)
		}
		return nil
	})
	if err != nil || seen < 100 {
		t.Fatalf("%d files: %v", seen, err)
	}
}

func checkImport(t *testing.T, file, imported string) {
	dir, test := path.Dir(filepath.ToSlash(file)), strings.HasSuffix(file, "_test.go")
	own, ours := strings.CutPrefix(imported, module)
	own = strings.TrimPrefix(own, "/")
	if own == "" {
		own = "."
	}
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case ours && !test:
		if !slices.Contains(mayImport[dir], own) {
			t.Errorf("%s imports %s: see the list of who may import whom", file, imported)
		}
	case ours:
		// Tests may also use what is for tests.
		if !slices.Contains(mayImport[dir], own) && own != dir && !strings.HasPrefix(own, "internal/") {
			t.Errorf("%s imports %s: the tests of a package follow its rules", file, imported)
		}
	case strings.Contains(first, "."):
		m := moduleOf(imported, modules)
		if m == "" && (dir == "netns" || dir == "netns/wireguard" || dir == "internal/nettest" || dir == "internal/testutil/kills" || dir == "bench") {
			m = moduleOf(imported, netModules)
		}
		if m == "" && (dir == "image" || dir == "internal/imagetest") {
			m = moduleOf(imported, imageModules)
		}
		if m == "" && dir == "rootfs/cdi" {
			m = moduleOf(imported, cdiModules)
		}
		if m == "" && (test || strings.Contains(dir, "/gen")) {
			m = moduleOf(imported, toolModules)
		}
		if m == "" {
			t.Errorf("%s imports %s: not a module of the list", file, imported)
		}
	case !test && unwanted[imported] != "" && !slices.Contains([]string{"internal/testutil", "internal/testutil/kills", "caissontest", "bench", "image", "internal/imagetest"}, dir): // no embedder links those, but image who wants it
		t.Errorf("%s imports %s: %s", file, imported, unwanted[imported])
	}
}

func moduleOf(pkg string, list map[string]string) string {
	for m := range list {
		if pkg == m || strings.HasPrefix(pkg, m+"/") {
			return m
		}
	}
	return ""
}

// Every module that go.mod requires is on one of the lists, and docs/dependencies.md tells what it is for.
func TestModules(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	known := map[string]bool{}
	for _, list := range []map[string]string{modules, imageModules, netModules, cdiModules, toolModules} {
		for name := range list {
			known[name] = true
		}
	}
	for line := range strings.Lines(string(mod)) {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "require "), " ")
		if !strings.Contains(line, " v") || name == "" {
			continue
		}
		n++
		if !known[name] {
			t.Errorf("go.mod requires %s, which no list here gives a reason for", name)
		}
		if !strings.Contains(string(doc), name) {
			t.Errorf("docs/dependencies.md does not tell what %s is for", name)
		}
	}
	if n != len(known) {
		t.Errorf("go.mod requires %d modules, the lists hold %d", n, len(known))
	}
}

// What a program links that does no more than run a directory.
func TestMinimalEmbedder(t *testing.T) {
	cmd := exec.Command("go", "env", "GOMODCACHE")
	dir, err := cmd.Output()
	if err != nil {
		t.Skip("no go command here")
	}
	if _, err := os.Stat(strings.TrimSpace(string(dir))); err != nil {
		t.Skip("needs a module cache: that of the builder belongs to another user")
	}
	cmd = exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{with .Module}}{{.Path}}{{end}}", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		pkg, mod, _ := strings.Cut(strings.TrimSpace(line), " ")
		if reason := unwanted[pkg]; reason != "" {
			t.Errorf("%s is linked: %s", pkg, reason)
		}
		if mod != "" && mod != module {
			linked[mod] = true
			if modules[mod] == "" {
				t.Errorf("%s is linked, of module %s, which the list does not hold", pkg, mod)
			}
		}
	}
	if len(linked) != len(modules) {
		t.Errorf("linked are %v, the list holds %d", linked, len(modules))
	}
}
