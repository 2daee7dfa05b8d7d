package rootfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

func TestRemedy(t *testing.T) {
	if got := Remedy("mount proc on", "/proc", &program.StepError{Errno: unix.EINVAL}); !strings.Contains(got, "must be a directory") {
		t.Errorf("%q", got)
	}
	if got := Remedy("mount bind on", "/x", unix.ENODEV); got != "" {
		t.Errorf("%q", got)
	}
}

// TestExplain holds the order of the system calls of a default start, and with it their number; and those of one whose mounts are labelled.
func TestExplain(t *testing.T) {
	env := Env{Features: Features{Openat2: true, MountSetattr: true}, ScratchDir: "/mnt"}
	t.Run("default", func(t *testing.T) { explained(t, env) })
	env.MountLabel = "system_u:object_r:container_file_t:s0:c1,c2"
	own := TmpfsMount("/own", 0)
	own.Label = "system_u:object_r:own_t:s0"
	t.Run("labelled", func(t *testing.T) {
		explained(t, env, own, Mount{Type: TypeMqueue, Target: "/queues", Label: own.Label}, TmpfsMount("/env", 0), OverlayMount("/stack", "", "", "/usr"))
	})
}

// explained compares the system calls of a start with those in a file named after the test.
func explained(t *testing.T, env Env, mounts ...Mount) {
	dir := t.TempDir()
	d, err := Dir(dir).Describe(context.Background(), Env{})
	if err != nil {
		t.Fatal(err)
	}
	l := DefaultLayout(d)
	l.Mounts = append(l.Mounts, mounts...)
	p, err := l.Compile(env)
	if err != nil {
		t.Fatal(err)
	}
	p.look = func(path string) pathKind {
		switch path {
		case "/proc/sys", "/proc/acpi", "/sys/firmware":
			return kindDir
		case "/proc/kcore":
			return kindFile
		}
		return kindMissing
	}
	b := program.NewBuilder(false)
	p.Sources(b)
	p.Assemble(b)
	p.Pivot(b)
	p.Populate(b)
	prog, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := prog.Explain(&text); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(text.String(), dir, "DIR")
	golden := filepath.Join("testdata", filepath.Base(t.Name())+".explain")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("%v; got\n%s", err, got)
	}
}

// TestValidateReportsAll wants every fault of a wish in one error.
func TestValidateReportsAll(t *testing.T) {
	l := &Layout{
		Mounts:      []Mount{{Type: 99, Target: "/x"}, BindMount("rel", "/a"), {Type: TypeTmpfs, Target: "/t", Set: 1 << 30}},
		Devices:     []Device{{Path: "/etc/null"}},
		Links:       []Link{{Path: "/x", Target: "y"}},
		MaskedPaths: []string{"rel"}, ReadOnlyPaths: []string{"/a/../b"},
		Files:       []File{{Path: "/proc/x"}, {Path: "/a", Size: 1}},
		Propagation: 17,
	}
	err := l.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 12 {
		t.Errorf("%d faults:\n%v", n, err)
	}
}

func TestDescribeRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		source Source
		want   error
	}{
		"missing":        {Dir(filepath.Join(dir, "none")), os.ErrNotExist},
		"empty":          {Dir(""), os.ErrNotExist},
		"file":           {Dir(file), unix.ENOTDIR},
		"tiny":           {Dir(dir).UpperSize(1), os.ErrInvalid},
		"no layers":      {Overlay(), os.ErrInvalid},
		"missing layer":  {Overlay(dir, filepath.Join(dir, "none")), os.ErrNotExist},
		"missing upper":  {Overlay(dir).Upper(filepath.Join(dir, "none")), os.ErrNotExist},
		"no descriptor":  {FD(nil), os.ErrInvalid},
		"too many":       {Overlay(make([]string, MaxLayers+1)...), os.ErrInvalid},
		"negative limit": {Host().UpperSize(-1), os.ErrInvalid},
	} {
		_, err := tt.source.Describe(context.Background(), Env{UserNamespace: true})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}

// TestVolatileAgain refuses an upper layer that may be incomplete.
func TestVolatileAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "work", "work", "incompat", "volatile"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Overlay(dir).Upper(dir).Describe(context.Background(), Env{}); !errors.Is(err, os.ErrInvalid) {
		t.Error(err)
	}
}
