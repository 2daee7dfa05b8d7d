package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// Names of variables: how often the power is cut; in the guest, which boot it is and what was reported in earlier ones.
const (
	powerEnv      = "CAISSON_TEST_POWERCUTS"
	powerBootEnv  = "CAISSON_TEST_POWER_BOOT"
	powerStateEnv = "CAISSON_TEST_POWER_STATE"
)

// powerText is the content of the large file of an image, which nobody else has.
func powerText(name string) string { return strings.Repeat(name+" ", 20000) }

// powerPlatform is what the second image of an index is for.
var powerPlatform = ocispec.Platform{OS: "linux", Architecture: "s390x"}

// powerIndex puts an index into the registry: an image for this machine, and one for another.
func powerIndex(ctx context.Context, s *Store, name string) (ocispec.Descriptor, error) {
	own, err := powerImage(s, name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	other, err := powerImage(s, name+"-other")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	here := LocalPlatform()
	own.Descriptor.Platform, other.Descriptor.Platform = &here, &powerPlatform
	data, err := indexJSON(own.Descriptor, other.Descriptor)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	use, err := s.use(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer use.Close()
	return s.putBlob(ocispec.MediaTypeImageIndex, data)
}

// powerImage puts an image of two layers into the registry.
func powerImage(s *Store, name string) (Image, error) {
	small := map[string]string{}
	for i := range 30 {
		small[fmt.Sprint("small", i)] = name
	}
	var blobs []blob
	for _, files := range []map[string]string{{"big": powerText(name)}, small} {
		data, err := powerLayer(files)
		if err != nil {
			return Image{}, err
		}
		blobs = append(blobs, plain(data))
	}
	return tryPutImage(s, name, ocispec.ImageConfig{}, blobs...)
}

func powerLayer(files map[string]string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, text); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// rolePower is the program in the guest: it looks for what was reported before, clears the store, and then works until the power goes.
func rolePower() {
	if err := power(context.Background()); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

func power(ctx context.Context) error {
	if err := errors.Join(os.MkdirAll("/mnt", 0o755), unix.Mount("/dev/vdb", "/mnt", "ext4", 0, "")); err != nil {
		return err
	}
	fmt.Println("checking")
	s, err := Open("/mnt/store", Options{})
	if err != nil {
		return err
	}
	if err := powerCheck(ctx, s, strings.Fields(os.Getenv(powerStateEnv))); err != nil {
		return fmt.Errorf("after the power was cut: %w", err)
	}
	src, err := Open("/tmp/src", Options{})
	if err != nil {
		return err
	}
	h := &shelf{s: src}
	srv := httptest.NewServer(h)
	defer srv.Close()
	fmt.Println("works")
	for i := 0; ; i++ {
		name := fmt.Sprintf("b%si%d", os.Getenv(powerBootEnv), i)
		if h.tag, err = powerIndex(ctx, src, name); err != nil {
			return err
		}
		if err := powerWork(ctx, s, strings.TrimPrefix(srv.URL, "http://")+"/team/app:1", name, i); err != nil {
			return err
		}
		if i >= 2 {
			if err := powerRemove(ctx, s, fmt.Sprintf("b%si%d", os.Getenv(powerBootEnv), i-2)); err != nil {
				return err
			}
		}
	}
}

// powerWork does everything once, and says what is durable.
func powerWork(ctx context.Context, s *Store, ref, name string, i int) error {
	if _, err := s.Pull(ctx, ref, PullOptions{RegistryOptions: anonymous}); err != nil {
		return err
	}
	if err := s.Tag(ctx, ref, name); err != nil {
		return err
	}
	fmt.Println("have image:" + name)
	if _, err := s.Pull(ctx, ref, PullOptions{RegistryOptions: anonymous, Platform: &powerPlatform}); err != nil {
		return err
	}
	fmt.Println("have other:" + name)
	if _, err := s.Unpack(ctx, name, UnpackOptions{Durable: i%2 == 0}); err != nil {
		return err
	}
	if i%2 == 0 {
		fmt.Println("have layers:" + name)
	}
	sn, err := s.NewSnapshot(ctx, name, name, SnapshotOptions{Method: []Method{MethodOverlay, MethodCopy}[i/2%2]})
	if err != nil {
		return err
	}
	fmt.Println("have snapshot:" + name)
	v, err := sn.Open(ctx)
	if err != nil {
		return err
	}
	own := v.Upper
	if own == nil {
		own = v.Tree
	}
	err = errors.Join(os.WriteFile(own.Name()+"/mine", []byte(powerText(name)), 0o644), v.Close(), sn.Seal(ctx))
	if err != nil {
		return err
	}
	fmt.Println("have sealed:" + name)
	return nil
}

func powerRemove(ctx context.Context, s *Store, old string) error {
	fmt.Println("removing " + old)
	if err := errors.Join(s.Remove(ctx, old), s.RemoveSnapshot(ctx, old)); err != nil {
		return err
	}
	if _, err := s.GC(ctx); err != nil {
		return err
	}
	fmt.Println("gone " + old)
	return nil
}

// powerCheck looks for what was reported, each as KIND:NAME.
func powerCheck(ctx context.Context, s *Store, state []string) error {
	faults, err := s.Repair(ctx)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		fmt.Printf("repaired %+v\n", faults)
	}
	var bad []error
	for _, st := range state {
		kind, name, _ := strings.Cut(st, ":")
		if err := powerHave(ctx, s, kind, name); err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", st, err))
		}
	}
	list, err := s.Snapshots(ctx)
	bad = append(bad, err)
	for _, sn := range slices.Backward(list) {
		bad = append(bad, s.RemoveSnapshot(ctx, sn.Name))
	}
	images, err := s.List(ctx)
	bad = append(bad, err)
	for _, img := range images {
		// Whatever has a name can be unpacked, also what nothing was said of any more.
		if _, err := s.Unpack(ctx, img.Name, UnpackOptions{}); err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", img.Name, err))
		}
		bad = append(bad, s.Remove(ctx, img.Name))
	}
	_, err = s.GC(ctx)
	u, uerr := s.Usage(ctx)
	if u.Blobs+u.Images+u.Layers+u.Snapshots != 0 {
		bad = append(bad, fmt.Errorf("not clean: %+v", u))
	}
	fmt.Printf("checked %d, %d images, %d snapshots\n", len(state), len(images), len(list))
	return errors.Join(append(bad, err, uerr)...)
}

func powerHave(ctx context.Context, s *Store, kind, name string) error {
	cached := true
	switch kind {
	case "image", "layers":
		u, err := s.Unpack(ctx, name, UnpackOptions{Progress: func(p Progress) { cached = cached && p.Cached }})
		if err != nil {
			return err
		}
		if kind == "layers" && !cached {
			return errors.New("unpacked once more")
		}
		return sameText(u.Dirs[1]+"/big", powerText(name))
	case "other":
		return powerHaveOther(ctx, s, name)
	case "snapshot":
		_, err := s.Snapshot(ctx, name)
		return err
	case "sealed":
		sn, err := s.Snapshot(ctx, name)
		if err != nil {
			return err
		}
		v, err := sn.Open(ctx)
		if err != nil {
			return err
		}
		defer v.Close()
		if v.Tree != nil {
			return errors.Join(sameText(v.Tree.Name()+"/mine", powerText(name)), sameText(v.Tree.Name()+"/big", powerText(name)))
		}
		return errors.Join(sameText(v.Upper.Name()+"/mine", powerText(name)), sameText(v.Lower[1]+"/big", powerText(name)))
	case "gone":
		if _, err := s.Get(ctx, name); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("image: %v", err)
		}
		if _, err := s.Snapshot(ctx, name); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("snapshot: %v", err)
		}
	}
	return nil
}

// powerHaveOther looks for the blobs of the platform that was fetched second.
func powerHaveOther(ctx context.Context, s *Store, name string) error {
	img, err := s.Get(ctx, name)
	if err != nil {
		return err
	}
	d, err := s.choose(img.Descriptor, powerPlatform, 0)
	if err != nil {
		return err
	}
	m, err := s.manifest(d)
	if err != nil {
		return err
	}
	for _, l := range append(m.Layers, m.Config) {
		if got, err := hashFile(ctx, s.blobPath(l.Digest)); err != nil || got != l.Digest {
			return fmt.Errorf("blob %s is %s: %w", l.Digest, got, errors.Join(err, ErrDigest))
		}
	}
	return nil
}

func sameText(path, want string) error {
	b, err := os.ReadFile(path)
	if err == nil && string(b) != want {
		err = fmt.Errorf("%s: %d bytes that are not what was written", path, len(b))
	}
	return err
}

// The power of a machine is cut while a program works with a store on ext4: what is only in its page cache is lost. What was reported durable
// is there, with its content, and the store is whole, or makes itself so.
func TestPowerCuts(t *testing.T) {
	cuts := envNumber(powerEnv, 0)
	if cuts == 0 {
		t.Skip("boots virtual machines; " + powerEnv + " says how many")
	}
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 256<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", disk).CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	vmrun := must[string](t)(filepath.Abs("../internal/testutil/vm/vmrun"))
	exe := must[string](t)(os.Executable())
	state, broken := map[string]bool{}, 0
	for cut := 0; cut <= cuts; cut++ {
		cmd := exec.Command(vmrun, "--timeout", "120", "--cpus", "1", "--", exe) // an emulated second processor stalls where the machine is busy
		cmd.Env = append(os.Environ(), testutil.RoleEnv+"=power", "CAISSON_VM_QEMU_ARGS=-drive file="+disk+",format=raw,if=none,id=store -device virtio-blk-pci,drive=store",
			fmt.Sprint(powerBootEnv, "=", cut), powerStateEnv+"="+strings.Join(slices.Sorted(maps.Keys(state)), " "))
		b := powerBoot(t, cmd, cut, cut == cuts)
		if t.Failed() {
			break
		}
		if b.worked {
			state = b.state
			continue
		}
		if broken++; broken > 3+cuts/10 {
			t.Fatalf("boot %d did not come to work: %s", cut, b.log)
		}
		t.Logf("boot %d is done again: %s", cut, b.log)
		cut--
		if b.checking { // part of what was reported may be gone
			state = nil
		}
	}
}

// boot is what a guest said. One that did not come to work, and did not say why, was broken: QEMU fails now and then.
type boot struct {
	state            map[string]bool // what was reported
	checking, worked bool
	log              string
}

// powerBoot runs the guest until its power is cut. The last boot only checks.
func powerBoot(t *testing.T, cmd *exec.Cmd, cut int, last bool) (b boot) {
	t.Helper()
	var log bytes.Buffer
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		err := cmd.Wait()
		b.log = log.String()
		// The guest itself, not QEMU: 124 and 125 are vmrun's own.
		if exit := new(exec.ExitError); !b.worked && errors.As(err, &exit) && exit.ExitCode() != 124 && exit.ExitCode() != 125 {
			t.Errorf("boot %d: the program ended: %v: %s", cut, err, b.log)
		}
	}()
	b.state = map[string]bool{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		what, name, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "have":
			b.state[name] = true
		case "removing":
			maps.DeleteFunc(b.state, func(k string, _ bool) bool { return strings.HasSuffix(k, ":"+name) })
		case "gone":
			b.state["gone:"+name] = true
		case "checking":
			b.checking = true
		case "works":
			b.worked = true
			after := time.Duration(rand.Int64N(int64(8 * time.Second)))
			if last {
				after = 0
			}
			timer := time.AfterFunc(after, func() { cutPower(t, cmd.Process.Pid) })
			defer timer.Stop()
		case "error":
			t.Errorf("boot %d: %s", cut, lines.Text())
		default:
			t.Logf("boot %d: %s", cut, lines.Text())
		}
	}
	return b
}

// cutPower kills the machine, which is a descendant of a process of ours.
func cutPower(t *testing.T, pid int) {
	for _, c := range testutil.Children(pid) {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c)); err == nil && strings.HasPrefix(string(comm), "qemu-system") {
			if err := unix.Kill(c, unix.SIGKILL); err != nil {
				t.Error(err)
			}
			return
		}
		cutPower(t, c)
	}
}
