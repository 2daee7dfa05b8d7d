package imagetest

import (
	"syscall"
	"testing"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
	"github.com/caisson-go/caisson/rootfs"
)

// What the documentation of package image says of docker run: the image's command, environment, user, working directory and volumes are the container's, but for what its user says.
func TestRunByTheConfig(t *testing.T) {
	ctx, store := testContext(t), newStore(t)
	img := must[image.Image](t)(store.Write(ctx, "app", image.ImageSpec{Base: "box", Edit: func(s *image.Settings) error {
		s.Entrypoint, s.Cmd = []string{"/bin/sh", "-c"}, []string{`echo "$MODE $(pwd) $(ls -d /bin) $(ls /vol)"; echo kept >/vol/new`}
		s.WorkingDir, s.StopSignal, s.Volumes = "/srv/app", "SIGQUIT", map[string]struct{}{"/vol": {}}
		s.SetEnv("MODE", "prod")
		return nil
	}}))
	info := must[*image.Info](t)(store.Inspect(ctx, img.Name, nil))
	dir := t.TempDir()
	volumes := must[[]rootfs.Mount](t)(store.Volumes(ctx, img.Name, dir, image.VolumeOptions{}))
	for _, want := range []string{"test /srv/app /bin \n", "test /srv/app /bin new\n"} { // the volume outlives its container
		p := info.Config.Process(image.Overrides{Env: []string{"MODE=test"}})
		if len(p.Args) != 3 || p.StopSignal != int(syscall.SIGQUIT) {
			t.Fatalf("%+v", p)
		}
		c := must[*caisson.Container](t)(caisson.New(
			caisson.WithRootfs(store.Rootfs(img.Name)),
			caisson.WithCommand(p.Args[0], p.Args[1:]...),
			caisson.WithEnv(p.Env...), caisson.WithUser(p.User), caisson.WithDir(p.Dir),
			caisson.WithStopSignal(syscall.Signal(p.StopSignal)),
			caisson.WithFiles(rootfs.File{Path: p.Dir, Dir: true, Mode: 0o755}),
			caisson.WithMount(volumes...),
		))
		out, err := c.Output(ctx)
		if err != nil || string(out) != want {
			t.Errorf("%q, %v, want %q", out, err, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if p := info.Config.Process(image.Overrides{Entrypoint: []string{}}); len(p.Args) != 0 {
		t.Errorf("no command at all: %q", p.Args)
	}
}
