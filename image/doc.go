// Package image keeps container images on disk and turns them into root filesystems.
//
// A [Store] is a directory in the layout of the OCI image specification, so that other tools read it. Images are pulled into it from
// registries, or loaded from OCI layouts and archives of docker save, podman save and skopeo; [Store.Rootfs] is an image as root
// filesystem of a container:
//
//	store, err := image.Open(dir, image.Options{})
//	if err != nil { … }
//	img, err := store.Pull(ctx, "alpine", image.PullOptions{})
//	if err != nil { … }
//	info, err := store.Inspect(ctx, img.Name, nil)
//	if err != nil { … }
//	p := info.Config.Process(image.Overrides{Args: os.Args[1:]})
//	if len(p.Args) == 0 { … } // neither the image nor its user names a command
//	c, err := caisson.New(
//		caisson.WithRootfs(store.Rootfs(img.Name)),
//		caisson.WithCommand(p.Args[0], p.Args[1:]...),
//		caisson.WithEnv(p.Env...), caisson.WithUser(p.User), caisson.WithDir(p.Dir),
//		caisson.WithStopSignal(syscall.Signal(p.StopSignal)),
//		caisson.WithStdio(),
//	)
//	if err != nil { … }
//	defer c.Close()
//	err = c.Run(ctx)
//
// What docker run does besides: it makes the working directory where the image has none (WithFiles with [rootfs.File].Dir, of a Process.Dir other than /), a directory
// for each volume of the image ([Store.Volumes]), and asks its health check ([Healthcheck.Command]). Ports that the image names ([Config].ExposedPorts) are published by nobody.
//
// The package is useful without containers too: [Store.Unpack] makes a directory of each layer, [Store.Extract] one of all of them,
// [Store.Import] an image of a tar of a root filesystem, and [Store.Save] an archive of images.
//
// [Source.EROFS], and for snapshots [SnapshotOptions].EROFS, takes the layers from files that the kernel mounts, one for each, instead of directories: nothing is unpacked,
// and what is read can be verified.
//
// # Snapshots
//
// [Store.Rootfs] forgets what a container changes. [Store.NewSnapshot] makes a root filesystem that persists, and [Snapshot.Rootfs] gives it to a container:
//
//	sn, err := store.NewSnapshot(ctx, "web", "alpine", image.SnapshotOptions{})
//	if err != nil { … }
//	c, err := caisson.New(caisson.WithRootfs(sn.Rootfs()), caisson.WithCommand("sh"))
//
// # Making images
//
// [Store.Write] makes an image of a base, layers and settings. A [Layer] is made of a directory ([DirLayer]), of what an overlay wrote
// ([UpperLayer]), of the difference of two trees ([DiffLayer]) or stacks of them ([DiffTrees]), of any [io/fs.FS] ([FSLayer]) or of an archive ([TarLayer]):
//
//	img, err := store.Write(ctx, "app:1", image.ImageSpec{
//		Base:   "debian:12",
//		Layers: []image.Layer{image.FSLayer(files, image.FSOptions{Prefix: "opt/app"})},
//		Edit:   func(s *image.Settings) error { s.Entrypoint = []string{"/opt/app/run"}; return nil },
//	})
//
// The same input makes the same image, if its times are given.
//
// # Sharing
//
// Any number of goroutines, programs and processes of one user may use a store at once. Content is written beside its place, verified, synced
// and renamed, so that neither a crash nor a kill leaves half of anything under a name that counts; what was half done
// is cleared away by the next [Open]. Names are changed in one step. [Store.GC] removes what no image and no container needs.
//
// # Registries
//
// [Store.Pull] and [Store.Push] speak the distribution protocol of OCI and Docker, with the names, the config.json and the credential helpers of
// Docker: what docker login knows is known here. A credential helper is a program on this machine that config.json names; RegistryOptions has
// other ways. TLS is required but on loopback addresses.
//
// # Hostile images
//
// An image is what a stranger wrote. Every document and every path in it is checked, sizes are bounded before anything is allocated ([Limits]), files are
// written beneath the directory of their layer by descriptors that the kernel resolves there (openat2(2)), no last component is ever followed, nothing of an
// image is run, and contents are compared with their digests. What is refused has an error of its own, which names layer and entry, and leaves the
// store as it was. Labels and annotations of an image mean nothing to this library. See docs/concepts/images.md.
//
// # Privilege
//
// As root, files get their owners, devices and capabilities. An ordinary user owns all files of a store, which suits containers
// whose root user is that user; what was left out is told by Unpacked.Notes, and by the notes of the container.
//
// # Limits
//
// Linux only: elsewhere [Open] answers [errors.ErrUnsupported], while names, platforms and configs can be read. sha256 is the only digest
// algorithm. Encrypted layers and image formats before the manifests of schema 2 are refused.
//
// Specifications: github.com/opencontainers/image-spec (manifest, config, layer, image-layout), and for archives of Docker, moby's
// image/spec.
package image
