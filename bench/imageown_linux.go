package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/caisson-go/caisson/image"
)

// imageProgram is the program that is measured beside others: this one, with that word first.
const imageProgram = "image-do"

// imageDo does one thing with a store: OPERATION STORE ARGUMENT...
func imageDo(args []string) error {
	if len(args) < 2 || ownOperations[args[0]] == nil {
		return errors.New("no such operation")
	}
	s, err := image.Open(args[1], image.Options{})
	if err != nil {
		return err
	}
	return errors.Join(ownOperations[args[0]](context.Background(), s, args[2:]), s.Close())
}

var ownOperations = map[string]func(ctx context.Context, s *image.Store, args []string) error{
	"unpack": func(ctx context.Context, s *image.Store, _ []string) error {
		_, err := s.Unpack(ctx, "bench", image.UnpackOptions{})
		return err
	},
	"unpack-igzip": func(ctx context.Context, s *image.Store, _ []string) error {
		_, err := s.Unpack(ctx, "bench", image.UnpackOptions{Igzip: true})
		return err
	},
	"unpack-erofs": func(ctx context.Context, s *image.Store, _ []string) error {
		_, err := s.Unpack(ctx, "bench", image.UnpackOptions{EROFS: true})
		return err
	},
	"layout": func(ctx context.Context, s *image.Store, args []string) error {
		_, err := s.LoadLayout(ctx, args[0], image.LoadOptions{Name: "bench"})
		return err
	},
	"pull": func(ctx context.Context, s *image.Store, args []string) error {
		_, err := s.Pull(ctx, args[0], image.PullOptions{RegistryOptions: image.RegistryOptions{Anonymous: true}})
		return err
	},
	"pull-unpack": func(ctx context.Context, s *image.Store, args []string) error {
		if _, err := s.Pull(ctx, args[0], image.PullOptions{RegistryOptions: image.RegistryOptions{Anonymous: true}}); err != nil {
			return err
		}
		_, err := s.Unpack(ctx, args[0], image.UnpackOptions{})
		return err
	},
	"push": func(ctx context.Context, s *image.Store, args []string) error {
		return s.Push(ctx, "bench", args[0], image.PushOptions{RegistryOptions: image.RegistryOptions{Anonymous: true}})
	},
	"save": func(ctx context.Context, s *image.Store, args []string) error {
		f, err := os.Create(args[0])
		if err != nil {
			return err
		}
		return errors.Join(s.Save(ctx, f, "bench"), f.Close())
	},
	"load": func(ctx context.Context, s *image.Store, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = s.Load(ctx, f, image.LoadOptions{})
		return err
	},
	"changed":   ownChanged,
	"commit":    ownCommit,
	"extract":   ownExtract,
	"diff":      ownDiff,
	"snapshot":  ownSnapshot,
	"snapshots": ownSnapshots,
	"small":     ownSmall,
}

// ownChanged makes a snapshot and prints where its changes are.
func ownChanged(ctx context.Context, s *image.Store, args []string) error {
	sn, err := s.NewSnapshot(ctx, args[0], "bench", image.SnapshotOptions{Method: image.MethodOverlay})
	if err != nil {
		return err
	}
	v, err := sn.Open(ctx)
	if err != nil {
		return err
	}
	fmt.Println(v.Upper.Name())
	return v.Close()
}

// ownCommit makes an image of a snapshot: STORE SNAPSHOT NAME COMPRESSION.
func ownCommit(ctx context.Context, s *image.Store, args []string) error {
	sn, err := s.Snapshot(ctx, args[0])
	if err != nil {
		return err
	}
	v, err := sn.Open(ctx)
	if err != nil {
		return err
	}
	spec := image.ImageSpec{Base: "bench", Layers: []image.Layer{image.UpperLayer(image.Tree{File: v.Upper}, image.TreeOptions{})}}
	if args[2] == "plain" {
		spec.Compression = image.CompressNone
	}
	_, err = s.Write(ctx, args[1], spec)
	return errors.Join(err, v.Close())
}

func ownExtract(ctx context.Context, s *image.Store, args []string) error {
	_, err := s.Extract(ctx, "bench", args[0], image.UnpackOptions{})
	return err
}

// ownDiff makes an image of a tree by comparing it with the unpacked layers: STORE TREE NAME.
func ownDiff(ctx context.Context, s *image.Store, args []string) error {
	u, err := s.Unpack(ctx, "bench", image.UnpackOptions{})
	if err != nil {
		return err
	}
	var lower []image.Tree
	for _, d := range u.Dirs {
		lower = append(lower, image.Tree{Path: d})
	}
	_, err = s.Write(ctx, args[1], image.ImageSpec{Base: "bench", Layers: []image.Layer{image.DiffLayer(lower, image.Tree{Path: args[0]}, image.TreeOptions{})}})
	return err
}

func ownSnapshot(ctx context.Context, s *image.Store, args []string) error {
	_, err := s.NewSnapshot(ctx, args[0], "bench", image.SnapshotOptions{})
	return err
}

// ownSnapshots makes as many snapshots as it is told and prints the milliseconds that one takes.
func ownSnapshots(ctx context.Context, s *image.Store, args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var times []float64
	for i := range n {
		name := "in-program-" + strconv.Itoa(i)
		begin := time.Now()
		if _, err := s.NewSnapshot(ctx, name, "bench", image.SnapshotOptions{}); err != nil {
			return err
		}
		times = append(times, time.Since(begin).Seconds()*1000)
		if err := s.RemoveSnapshot(ctx, name); err != nil {
			return err
		}
	}
	fmt.Println(summarize(times).Median)
	return nil
}

// ownSmall makes the image that a small service is built on: STORE BUSYBOX ARCHIVE.
func ownSmall(ctx context.Context, s *image.Store, args []string) error {
	dir, err := os.MkdirTemp(filepath.Dir(args[1]), "small-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Mkdir(dir+"/bin", 0o755), os.Mkdir(dir+"/tmp", 0o755), os.Chmod(dir, 0o755), copyFile(dir+"/bin/busybox", args[0]), os.Symlink("busybox", dir+"/bin/sh")); err != nil {
		return err
	}
	layer := image.DirLayer(image.Tree{Path: dir}, image.TreeOptions{})
	if _, err := s.Write(ctx, "localhost/base:1", image.ImageSpec{Layers: []image.Layer{layer}}); err != nil {
		return err
	}
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	return errors.Join(s.Save(ctx, f, "localhost/base:1"), f.Close())
}
