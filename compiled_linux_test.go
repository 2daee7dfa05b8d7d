package caisson

import (
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

func forgetPrograms() {
	remembered.mu.Lock()
	defer remembered.mu.Unlock()
	remembered.list = nil
}

func rememberedPrograms() int {
	remembered.mu.Lock()
	defer remembered.mu.Unlock()
	return len(remembered.list)
}

// Every option that changes the program changes it also when programs of all the others are remembered.
func TestRememberedPrograms(t *testing.T) {
	testutil.NeedRoot(t) // others have no cgroup to leave out, and no ids to choose from
	root := rootfs.Dir("/")
	variants := map[string][]Option{
		"plain":       nil,
		"args":        {WithCommand("/bin/true", "x")},
		"env":         {WithEnv("A=b")},
		"hostname":    {WithHostname("other")},
		"id":          {WithID("named")},
		"dir":         {WithDir("/tmp")},
		"user":        {WithUser("0:5")},
		"capability":  {WithDroppedCapabilities("CHOWN")},
		"privileges":  {WithNoNewPrivileges(false)},
		"read-only":   {WithReadOnlyRoot(true)},
		"sysctl":      {WithSysctl("net.ipv4.ip_forward", "1")},
		"tmpfs":       {WithMount(rootfs.Mount{Type: rootfs.TypeTmpfs, Target: "/srv", Size: 1 << 20})},
		"file":        {WithFile("/etc/x", []byte("1"), 0o644)},
		"other file":  {WithFile("/etc/x", []byte("2"), 0o644)},
		"no cgroup":   {WithoutCgroup()},
		"terminal":    {WithTerminal(0, 0)},
		"time":        {WithCPUTime(1e9), WithoutCgroup()},
		"upper layer": {WithRootfs(root.UpperSize(1 << 20))},
	}
	explain := func(name string) string {
		t.Helper()
		c, err := New(append([]Option{WithRootfs(root), WithCommand("/bin/true")}, variants[name]...)...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer c.Close()
		var b bytes.Buffer
		if err := c.Explain(context.Background(), &b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return b.String()
	}
	fresh := map[string]string{}
	for name := range variants {
		forgetPrograms()
		fresh[name] = explain(name)
	}
	forgetPrograms()
	for range 2 {
		for name := range variants { // in random order
			if got := explain(name); got != fresh[name] {
				t.Errorf("%s: the program differs once others are remembered", name)
			}
		}
	}
	if n := rememberedPrograms(); n < 10 || n > maxPrograms {
		t.Errorf("%d programs are remembered", n)
	}
	for a := range variants {
		for b := range variants {
			if a < b && fresh[a] == fresh[b] && a != "id" && b != "id" {
				t.Errorf("%s and %s have the same program: the test shows nothing", a, b)
			}
		}
	}
}

// What can change while the host program runs is looked at anew.
func TestForgottenPrograms(t *testing.T) {
	dir := t.TempDir()
	open, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for name, o := range map[string]Option{
		"bind":         WithMount(rootfs.Mount{Type: rootfs.TypeBind, Source: dir, Target: "/srv"}),
		"command file": WithCommandFile(open),
		"open root":    WithRootfs(rootfs.FD(open)),
	} {
		if name == "open root" && !isRoot() {
			continue // it is looked up by its path, like any other
		}
		forgetPrograms()
		c, err := New(WithRootfs(rootfs.Dir("/")), WithCommand("/bin/true"), o)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Explain(context.Background(), &bytes.Buffer{})
		c.Close()
		if n := rememberedPrograms(); n != 0 {
			t.Errorf("%s: remembered", name)
		}
	}
}

// The fields that a key leaves out exist, and nothing that makes programs uses them.
func TestProgramKeyLeavesOut(t *testing.T) {
	left := map[string]bool{}
	for typ, names := range notInProgram {
		for _, name := range names {
			if _, ok := typ.FieldByName(name); !ok {
				t.Errorf("%v has no field %s", typ, name)
			}
			left[name] = name != "plan"
		}
	}
	files, err := filepath.Glob("*_linux.go")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && makesProgram(fn) {
				looked++
				ast.Inspect(fn, func(n ast.Node) bool {
					if s, ok := n.(*ast.SelectorExpr); ok && left[s.Sel.Name] && ofSpec(s.X) {
						t.Errorf("%s in %s uses %s, which programs must not depend on", fn.Name.Name, file, s.Sel.Name)
					}
					return true
				})
			}
		}
	}
	if looked < 10 {
		t.Errorf("%d functions were looked at", looked)
	}
}

// ofSpec says that an expression is the spec or its process, by the names that they have.
func ofSpec(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "s" || x.Name == "p"
	case *ast.SelectorExpr:
		return x.Sel.Name == "s" || x.Sel.Name == "process"
	}
	return false
}

// makesProgram says that a function is compile or a method of the compiler.
func makesProgram(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return fn.Name.Name == "compile"
	}
	star, ok := fn.Recv.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	id, ok := star.X.(*ast.Ident)
	return ok && id.Name == "compiler"
}

// Different values have different keys, whatever their types.
func TestProgramKeys(t *testing.T) {
	type inner struct {
		A, B string
		C    []string
	}
	type value struct {
		I inner
		P *inner
		N int
		U uint64
		B bool
		Y []byte
		F func()
		M map[string]int
		S []inner
		E any
		H [2]uint32
		K struct {
			B byte
			N uint64
		}
		L *os.File
	}
	key := func(v value) (string, bool) {
		k := keyer{}
		k.value(formOf(reflect.TypeFor[value](), map[reflect.Type]*form{}), unsafe.Pointer(&v))
		return string(k.buf), !k.cannot
	}
	seen := map[string]value{}
	for _, v := range []value{
		{}, {N: 1}, {N: -1}, {U: 1}, {B: true}, {Y: []byte{}}, {Y: []byte{0}}, {Y: []byte{0, 0}}, {P: &inner{}}, {P: &inner{A: "x"}},
		{I: inner{A: "x"}}, {I: inner{B: "x"}}, {I: inner{A: "x", B: "y"}}, {I: inner{A: "xy"}}, {I: inner{C: []string{"x", "y"}}},
		{I: inner{C: []string{"xy"}}}, {I: inner{C: []string{}}}, {S: []inner{{}}}, {S: []inner{{}, {}}},
		{H: [2]uint32{1, 0}}, {H: [2]uint32{0, 1}}, {H: [2]uint32{0, 256}}, {P: &inner{C: []string{"x"}}},
	} {
		k, ok := key(v)
		if other, twice := seen[k]; twice || !ok {
			t.Errorf("%+v has the key of %+v, or none", v, other)
		}
		seen[k] = v
	}
	for _, v := range []value{{F: func() {}}, {M: map[string]int{"": 0}}, {E: 1}, {L: os.Stdin}, {I: inner{A: strings.Repeat("x", maxProgramKey+1)}}} {
		if _, ok := key(v); ok {
			t.Errorf("%+v has a key", v)
		}
	}
}
