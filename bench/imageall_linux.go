package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// imagePrograms are the programs that ways need. A variable of the environment of that name says where one is, else PATH has it.
var imagePrograms = map[string]string{"UMOCI": "umoci", "SKOPEO": "skopeo", "PODMAN": "podman", "BUILDAH": "buildah", "CONTAINERD": "containerd", "CTR": "ctr",
	"REGISTRY": "docker-registry", "TAR": "tar", "PIGZ_PROGRAM": "pigz", "ZSTD": "zstd", "CURL": "curl", "IGZIP": "igzip"}

// imageReport is what results/image.json holds.
type imageReport struct {
	report
	Images map[string]*imageLayout `json:"images"`
	Tasks  []imageResult           `json:"tasks"`
}

// imageBench is one run of the command image.
type imageBench struct {
	*imageTools
	w    *workspace
	keep string
	out  imageReport
	text strings.Builder
}

// images is the command image, in a mount namespace of its own: podman and buildah leave mounts behind.
func images(w *workspace) error {
	if os.Getenv(privateEnv) == "" {
		return inPrivate()
	}
	// podman, skopeo and buildah remember registries there, whatever store they are told to use.
	if _, err := os.Stat("/var/lib/containers"); err == nil {
		if err := unix.Mount("bench", "/var/lib/containers", "tmpfs", 0, "mode=700"); err != nil {
			return fmt.Errorf("mount a tmpfs: %w", err)
		}
	}
	top, err := os.MkdirTemp(*imageDir, "cbench-") // podman takes short paths only
	if err != nil {
		return err
	}
	w.undo = append(w.undo, func() error { return removeMounted(top) })
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &imageBench{imageTools: &imageTools{top: top, vars: map[string]string{"SELF": self}}, w: w, keep: top}
	if *imageKeep != "" {
		b.keep = *imageKeep
	}
	for env, name := range imagePrograms {
		b.vars[env] = tool(env, name)
	}
	b.out.report, b.out.Images = machine(), map[string]*imageLayout{}
	b.out.Command = "image"
	err = b.all()
	return errors.Join(err, w.keep("image", b.text.String(), b.out))
}

// inPrivate runs this command again in a mount namespace of its own.
func inPrivate() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command("unshare", append([]string{"-m", "--propagation", "private", self}, os.Args[1:]...)...)
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), privateEnv+"=1"), os.Stdout, os.Stderr
	return c.Run()
}

// all measures the parts that were asked for.
func (b *imageBench) all() error {
	b.say(fmt.Sprintf("Linux %s, %d CPUs, %s; %d samples of each tool, in turns; images and destinations in %s.\n", b.out.Kernel, runtime.NumCPU(), b.out.Go, *imageRounds, *imageDir))
	parts := strings.Split(*imageParts, ",")
	if slices.Contains(parts, "unpack") {
		for _, kind := range strings.Split(*imageKinds, ",") {
			if err := b.unpack(kind); err != nil {
				return err
			}
		}
	}
	if err := b.tasks(parts); err != nil {
		return err
	}
	if !slices.Contains(parts, "start") {
		return nil
	}
	r, err := imageStarts(b.top)
	if err == nil {
		b.out.Tasks = append(b.out.Tasks, r)
		b.say(r.markdown())
	}
	return err
}

func (b *imageBench) say(text string) {
	fmt.Print(text)
	b.text.WriteString(text)
}

func (b *imageBench) do(task imageTask) {
	r := b.measure(task)
	b.out.Tasks = append(b.out.Tasks, r)
	b.say(r.markdown())
}

// What was promised of each kind of image.
var unpackGoals = map[string][]imageGoal{
	"gzip": {{kindPeer, 2.5}, {kindBound, 1.15}, {"MiB", 128}}, "zstd": {{kindPeer, 4}, {kindBound, 1.15}, {"MiB", 128}},
	"single": {{kindBound, 1.25}, {"MiB", 128}}, "small": {{kindPeer, 2}, {"MiB", 128}},
}

// unpack measures one kind of image.
func (b *imageBench) unpack(kind string) error {
	done, err := b.load(kind)
	if err != nil {
		return err
	}
	task := unpackTask(unpackGoals[kind])
	task.name += " " + kind
	if b.out.Images[kind].Comp == "gzip" {
		task.ways = append(task.ways, igzipWay)
	}
	task.ways = append(task.ways, erofsWay)
	b.do(task)
	return done()
}

// load makes an image and a store that has it.
func (b *imageBench) load(kind string) (done func() error, err error) {
	var dirs [][]string
	var all []string
	for _, l := range strings.Split(*imageDirs, ",") {
		dirs = append(dirs, strings.Split(l, "+"))
		all = append(all, strings.Split(l, "+")...)
	}
	layers, comp := dirs, kind
	switch kind {
	case "single":
		layers, comp = [][]string{all}, "gzip"
	case "small":
		layers, comp = smallLayers("/usr/include", 128), "gzip"
	}
	l, err := keptLayout(filepath.Join(b.keep, kind), comp, layers)
	if err != nil {
		return nil, err
	}
	b.out.Images[kind] = l
	b.say(fmt.Sprintf("\n%s: %d layers, %d entries, %d MB of tar, %d MB of blobs\n", kind, len(l.Layers), l.Entries, l.Tar>>20, l.Blobs>>20))
	var blobs, sizes []string
	for _, p := range l.Layers {
		fi, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		blobs, sizes = append(blobs, filepath.Base(p)), append(sizes, fmt.Sprintf("%.1f", float64(fi.Size())/(1<<20)))
	}
	if len(sizes) <= 8 {
		b.say("blobs of " + strings.Join(sizes, ", ") + " MB\n")
	}
	b.vars["L"], b.vars["BLOBS"], b.vars["STORE"] = l.dir, strings.Join(blobs, " "), filepath.Join(b.top, "store-"+kind)
	b.vars["DECOMPRESS"] = map[string]string{"gzip": b.vars["PIGZ_PROGRAM"] + " -dc", "zstd": b.vars["ZSTD"] + " -qdc"}[l.Comp]
	if _, _, err := b.command(words(self + "layout $STORE $L")[0]); err != nil {
		return nil, err
	}
	return func() error {
		err := removeMounted(b.vars["STORE"])
		if *imageKeep == "" {
			err = errors.Join(err, os.RemoveAll(l.dir))
		}
		return err
	}, nil
}

// tasks measures what is done with one image, of the first kind that was named.
func (b *imageBench) tasks(parts []string) error {
	var list []imageTask
	for _, t := range append(append(transferTasks(), changeTasks()...), snapshotTask()) {
		if slices.Contains(parts, strings.ReplaceAll(t.name, " and ", "-")) {
			list = append(list, t)
		}
	}
	if list != nil {
		kind, _, _ := strings.Cut(*imageKinds, ",")
		done, err := b.load(kind)
		if err != nil {
			return err
		}
		stop, err := b.ready(parts)
		if err != nil {
			return errors.Join(err, done())
		}
		for _, t := range list {
			b.do(t)
		}
		if err := errors.Join(stop(), done()); err != nil {
			return err
		}
	}
	if !slices.Contains(parts, "rebuild") {
		return nil
	}
	if err := b.service(); err != nil {
		return err
	}
	b.do(rebuildTask())
	return nil
}

// ready makes what the tasks begin with: a registry that has the image, an archive of it, files to add.
func (b *imageBench) ready(parts []string) (stop func() error, err error) {
	stop = func() error { return nil }
	b.vars["ARCHIVE"], b.vars["CHANGES"] = filepath.Join(b.top, "archive"), filepath.Join(b.top, "changes")
	if slices.Contains(parts, "load") {
		if _, _, err := b.command(words(self + "save $STORE $ARCHIVE")[0]); err != nil {
			return stop, err
		}
	}
	if err := makeChanges(b.vars["CHANGES"], 2000); err != nil {
		return stop, err
	}
	if b.vars["REGISTRY"] == "" || !slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(p, "pu") }) {
		return stop, nil
	}
	if b.vars["R"], stop, err = startRegistry(b.vars["REGISTRY"], filepath.Join(b.top, "registry")); err != nil {
		return stop, err
	}
	b.vars["REF"] = b.vars["R"] + "/bench:bench"
	if _, _, err = b.command(words(self + "push $STORE $REF")[0]); err != nil {
		err = errors.Join(err, stop())
	}
	return stop, err
}

// makeChanges writes n files of 16 KiB that compress as text does.
func makeChanges(dir string, n int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		f, err := os.Create(fmt.Sprintf("%s/file%d", dir, i))
		if err != nil {
			return err
		}
		out := bufio.NewWriter(f)
		for line := range 400 {
			fmt.Fprintf(out, "line %d of file %d, as no other is: %d\n", line, i, (i*400+line)*2654435761)
		}
		if err := errors.Join(out.Flush(), f.Truncate(16<<10), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// startRegistry starts Docker's registry server on a loopback address.
func startRegistry(program, dir string) (addr string, stop func() error, err error) {
	stop = func() error { return nil }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", stop, err
	}
	addr = l.Addr().String()
	if err := errors.Join(l.Close(), os.Mkdir(dir, 0o700)); err != nil {
		return "", stop, err
	}
	config := "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp: {addr: \"" + addr + "\"}\n"
	if err := os.WriteFile(dir+"/config.yml", []byte(config), 0o600); err != nil {
		return "", stop, err
	}
	cmd := exec.Command(program, "serve", dir+"/config.yml")
	if err := cmd.Start(); err != nil {
		return "", stop, err
	}
	stop = func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait()
		return errors.Join(err, os.RemoveAll(dir))
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return addr, stop, c.Close()
		}
		if time.Now().After(end) {
			return "", stop, errors.Join(err, stop())
		}
	}
}

// serviceFile is the Dockerfile of a small service.
const serviceFile = `FROM localhost/base:1 AS maker
WORKDIR /src
COPY src/ .
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox cat *.c >/program"]
FROM localhost/base:1
ENV PORT=8080
COPY --from=maker /program /srv/program
USER 1000
EXPOSE 8080
ENTRYPOINT ["/srv/program"]
`

// service makes the directory of a small service, the image that it is built on, and the builder.
func (b *imageBench) service() error {
	dir := filepath.Join(b.top, "service")
	b.vars["SERVICE"], b.vars["SMALL"], b.vars["BASE"] = dir, filepath.Join(b.top, "small"), filepath.Join(b.top, "base.tar")
	if err := errors.Join(os.Mkdir(dir, 0o755), makeChanges(dir+"/src", 50), os.WriteFile(dir+"/src/a.c", []byte("a"), 0o644), os.WriteFile(dir+"/Dockerfile", []byte(serviceFile), 0o644)); err != nil {
		return err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w (install busybox-static)", err)
	}
	b.vars["BUSYBOX"] = busybox
	if _, _, err := b.command(words(self + "small $SMALL $BUSYBOX $BASE")[0]); err != nil {
		return err
	}
	src, err := sourceDir()
	if err != nil {
		return nil // a built bench elsewhere: left out, without a builder
	}
	b.vars["BUILD"] = filepath.Join(b.top, "build")
	c := exec.CommandContext(context.Background(), "go", "build", "-o", b.vars["BUILD"], "./build")
	c.Dir, c.Env = filepath.Join(filepath.Dir(src), "examples"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the builder: %w\n%s", err, out)
	}
	return nil
}

// removeMounted removes a directory in which others have mounted something.
func removeMounted(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	slices.Reverse(lines)
	for _, l := range lines {
		if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			err = errors.Join(err, unix.Unmount(f[4], unix.MNT_DETACH))
		}
	}
	return errors.Join(err, os.RemoveAll(dir))
}
