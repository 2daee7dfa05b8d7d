package image

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// engineImage writes an image that runs: a shell, deleted and replaced files, hard links, owners, and settings.
func engineImage(t *testing.T, s *Store, name string, c Compression) {
	t.Helper()
	root := func(uint32, uint32) (uint32, uint32, error) { return 0, 0, nil }
	// Layers name the directories that they change, whose times would be those of unpacking else.
	second := layer(t, dir("./"), dir("etc/"), dir("d/"), file("d/file", "first"), hard("d/linked", "d/file"), link("d/soft", "file"), file("d/gone", "x"), dir("old/"), file("old/x", "x"),
		file("etc/passwd", "root:x:0:0:root:/:/bin/sh\nweb:x:7:8:web:/srv:/bin/sh\n"))
	third := layer(t, dir("./"), dir("d/"), file("d/.wh.gone", ""), dir("old/"), file("old/.wh..wh..opq", ""), file("old/new", "new"), file("d/long-"+strings.Repeat("n", 150), "ü"))
	must[Image](t)(s.Write(context.Background(), name, ImageSpec{Compression: c,
		Layers: []Layer{DirLayer(Tree{Path: testutil.Busybox(t)}, TreeOptions{Owner: root}), TarLayer(strings.NewReader(string(second))), TarLayer(strings.NewReader(string(third)))},
		Edit: func(c *Settings) error {
			c.Entrypoint, c.Cmd, c.User, c.WorkingDir = []string{"/bin/sh", "-c"}, []string{engineLook}, "web", "/d"
			c.SetEnv("GREETING", "from the image")
			return nil
		}}))
}

// engineLook is what the image's command says of its files and itself, and engineSees what that is.
const (
	engineLook = "echo $GREETING; pwd; id -u; id -g; ls /d /old; cat soft linked; stat -c %h linked"
	engineSees = "from the image\n/d\n7\n8\n/d:\nfile\nlinked\nlong-" +
		"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" +
		"\nsoft\n\n/old:\nnew\nfirstfirst2\n"
)

// podman fetches our images, runs them, and unpacks them as they are unpacked here.
func TestPodmanRuns(t *testing.T) {
	e := testutil.NewEngine(t, "podman", "runc", "docker-registry")
	addr := distribution(t, "")
	ctx := context.Background()
	for c, tag := range map[Compression]string{CompressGzip: "gzip", CompressZstd: "zstd", CompressNone: "plain"} {
		t.Run(tag, func(t *testing.T) {
			s := openStore(t, Options{})
			engineImage(t, s, "app", c)
			name, dir := addr+"/team/app:"+tag, t.TempDir()
			if err := s.Push(ctx, "app", name, PushOptions{RegistryOptions: anonymous}); err != nil {
				t.Fatal(err)
			}
			if got := e.Run(`podman pull -q --tls-verify=false "$1" >/dev/null; started "$1"; cp -a "$(podman image mount "$1")" "$2/tree"; podman rm -fa >/dev/null`, name, dir); got != engineSees {
				t.Errorf("%q; want %q", got, engineSees)
			}
			back := t.TempDir()
			must[[]string](t)(s.Extract(ctx, "app", back, UnpackOptions{}))
			if got, want := rootText(t, dir+"/tree"), rootText(t, back); got != want {
				t.Errorf("podman unpacks, and here it is:\n%s", differing(got, want))
			}
		})
	}
}

// What podman makes of a container and writes, as archives of both kinds, as a layout and to a registry, is read here.
func TestPodmanWrites(t *testing.T) {
	e := testutil.NewEngine(t, "podman", "runc", "docker-registry")
	addr := distribution(t, "")
	ctx, dir := context.Background(), t.TempDir()
	s := openStore(t, Options{})
	engineImage(t, s, "app", CompressGzip)
	if err := os.WriteFile(dir+"/in.tar", saved(t, s, "app"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Run(`podman load -q -i "$1/in.tar"
started --name made --user 0 --entrypoint '["/bin/sh", "-c"]' docker.io/library/app 'rm -r /old linked; mkdir /old; echo changed >/old/y; ln /old/y /hard; chown 5:6 /hard; chmod 4755 /d/soft; mkfifo /fifo'
podman commit -q --change ENV=A=b --change CMD=/bin/sh made localhost/made:1
cp -a "$(podman image mount localhost/made:1)" "$1/tree"
podman save -q --format oci-archive -o "$1/oci.tar" localhost/made:1
podman save -q --format docker-archive -o "$1/docker.tar" localhost/made:1
podman save -q --format oci-dir -o "$1/layout" localhost/made:1
podman push -q --tls-verify=false localhost/made:1 "$2/made:1"
podman push -q --tls-verify=false --compression-format zstd localhost/made:1 "$2/made:zstd"
podman rm -fa`, dir, addr)
	want := rootText(t, dir+"/tree")
	if !strings.Contains(want, "\nhard 104755 5:6 ") && !strings.Contains(want, "\nhard 100644 5:6 ") {
		t.Fatalf("podman made\n%s", want)
	}
	for name, load := range map[string]func(s *Store) (Image, error){
		"oci-archive":    func(s *Store) (Image, error) { return first(loadFile(s, dir+"/oci.tar")) },
		"docker-archive": func(s *Store) (Image, error) { return first(loadFile(s, dir+"/docker.tar")) },
		"oci-dir":        func(s *Store) (Image, error) { return first(s.LoadLayout(ctx, dir+"/layout", LoadOptions{})) },
		"registry": func(s *Store) (Image, error) {
			return s.Pull(ctx, addr+"/made:1", PullOptions{RegistryOptions: anonymous})
		},
		"registry, zstd": func(s *Store) (Image, error) {
			return s.Pull(ctx, addr+"/made:zstd", PullOptions{RegistryOptions: anonymous})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Options{})
			img, err := load(s)
			if err != nil {
				t.Fatal(err)
			}
			checkFromEngine(t, s, img, want, "A=b")
		})
	}
}

// checkFromEngine compares an image with the tree that the engine has of it.
func checkFromEngine(t *testing.T, s *Store, img Image, want, env string) {
	t.Helper()
	ctx, ref, back := context.Background(), img.Name, t.TempDir()
	if ref == "" {
		ref = img.Descriptor.Digest.String()
	}
	if notes, err := s.Extract(ctx, ref, back, UnpackOptions{}); err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	if got := rootText(t, back); got != want {
		t.Errorf("here it is, and was:\n%s", differing(got, want))
	}
	info := must[*Info](t)(s.Inspect(ctx, ref, nil))
	if text := fmt.Sprint(info.Config.Env, info.Config.Cmd); !strings.Contains(text, env) || !strings.Contains(text, "/bin/sh") {
		t.Error(text)
	}
	if f, err := s.Verify(ctx); err != nil || len(f) != 0 {
		t.Errorf("%v, %v", f, err)
	}
}

// rootText is treeText without the time of the root directory, which these engines do not keep.
func rootText(t testing.TB, root string) string {
	line, rest, _ := strings.Cut(treeText(t, root), "\n")
	return strings.Join(strings.Fields(line)[:3], " ") + "\n" + rest
}

// differing returns the lines that only one of two texts has.
func differing(a, b string) string {
	var out strings.Builder
	for _, p := range [][3]string{{"<", a, b}, {">", b, a}} {
		other := "\n" + p[2]
		for line := range strings.Lines(p[1]) {
			if !strings.Contains(other, "\n"+line) {
				out.WriteString(p[0] + " " + line)
			}
		}
	}
	return out.String()
}

func first(images []Image, err error) (Image, error) {
	if err != nil || len(images) == 0 {
		return Image{}, fmt.Errorf("%v, %w", images, err)
	}
	return images[0], nil
}

func loadFile(s *Store, path string) ([]Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.Load(context.Background(), f, LoadOptions{})
}

// buildah builds upon our image, and what it builds, as a layout and as an archive, in both formats, is read here.
func TestBuildah(t *testing.T) {
	e := testutil.NewEngine(t, "buildah")
	ctx, work := context.Background(), t.TempDir()
	s := openStore(t, Options{})
	engineImage(t, s, "app", CompressGzip)
	if err := os.WriteFile(work+"/in.tar", saved(t, s, "app"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := "FROM docker-archive:" + work + "/in.tar\nUSER 0\nRUN rm -r /old && mkdir /old && echo built >/old/y && ln /old/y /hard\nCOPY --chown=5:6 Containerfile /copied\nENV A=b\nENTRYPOINT []\nCMD [\"/bin/sh\"]\n" +
		"HEALTHCHECK --interval=7s CMD test -e /hard\nVOLUME /data\n"
	if err := os.WriteFile(filepath.Join(work, "Containerfile"), []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"oci", "docker"} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			e.Run(`buildah bud -q --isolation chroot --format "$2" --layers=false -t localhost/built:1 "$1"
c=$(buildah from localhost/built:1)
cp -a "$(buildah mount "$c")" "$3/tree"
buildah rm "$c"
buildah push -q localhost/built:1 "oci:$3/layout:made"
buildah push -q localhost/built:1 "oci-archive:$3/oci.tar:made"
buildah push -q localhost/built:1 "docker-archive:$3/docker.tar:localhost/made:1"
buildah rmi -f localhost/built:1`, work, format, dir)
			want := rootText(t, dir+"/tree")
			for name, load := range map[string]func(s *Store) (Image, error){
				"layout":         func(s *Store) (Image, error) { return first(s.LoadLayout(ctx, dir+"/layout", LoadOptions{})) },
				"oci-archive":    func(s *Store) (Image, error) { return first(loadFile(s, dir+"/oci.tar")) },
				"docker-archive": func(s *Store) (Image, error) { return first(loadFile(s, dir+"/docker.tar")) },
			} {
				t.Run(name, func(t *testing.T) {
					s := openStore(t, Options{})
					img, err := load(s)
					if err != nil {
						t.Fatal(err)
					}
					checkFromEngine(t, s, img, want, "A=b")
					info := must[*Info](t)(s.Inspect(ctx, img.Name, nil))
					if format == "docker" && name == "docker-archive" {
						if h, err := json.Marshal(info.Config.Healthcheck); err != nil || !strings.Contains(string(h), "test -e /hard") {
							t.Errorf("%s, %v", h, err)
						}
					}
					if len(info.Config.Volumes) != 1 {
						t.Errorf("%v", info.Config.Volumes)
					}
				})
			}
		})
	}
}
