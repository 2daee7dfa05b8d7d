package image_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/caisson-go/caisson/image"
)

// What an image asks for, merged with what its user asks for.
func ExampleConfig_Process() {
	config, err := image.ParseConfig([]byte(`{"config": {"Entrypoint": ["/server"], "Cmd": ["-port", "80"], "Env": ["MODE=prod"], "User": "web"}}`))
	if err != nil {
		log.Fatal(err)
	}
	p := config.Process(image.Overrides{Args: []string{"-port", "8080"}, Env: []string{"MODE=test"}})
	fmt.Println(p.Args, p.Env, p.User, p.Dir)
	// Output: [/server -port 8080] [MODE=test] web /
}

// Names mean what they mean to Docker.
func ExampleParseReference() {
	for _, name := range []string{"alpine", "me/app:2", "localhost:5000/app"} {
		ref, err := image.ParseReference(name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ref)
	}
	// Output:
	// docker.io/library/alpine:latest
	// docker.io/me/app:2
	// localhost:5000/app:latest
}

// An image is fetched, what of it is not there yet, and its layers are made ready, so that a container of it starts at once.
func ExampleStore_Pull() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	dir, err := image.DefaultDir()
	if err != nil {
		log.Fatal(err)
	}
	store, err := image.Open(dir, image.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	img, err := store.Pull(ctx, "alpine", image.PullOptions{Progress: func(p image.Progress) {
		if p.Done == p.Total { // of one blob; several are under way at once
			log.Println(p.Digest, "is there")
		}
	}})
	if errors.Is(err, image.ErrRateLimit) {
		log.Fatal("later, or from a mirror: ", err)
	}
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.Unpack(ctx, img.Name, image.UnpackOptions{}); err != nil {
		log.Fatal(err)
	}
	if _, err := store.GC(ctx); err != nil { // what the name stood for before
		log.Fatal(err)
	}
	fmt.Println(img.Name, img.Descriptor.Digest)
}

// An archive of docker save becomes directories, one for each layer.
func ExampleStore_Unpack() {
	ctx := context.Background()
	store, err := image.Open("/var/lib/app/images", image.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	file, err := os.Open("app.tar")
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	images, err := store.Load(ctx, file, image.LoadOptions{})
	if err != nil {
		log.Fatal(err)
	}
	unpacked, err := store.Unpack(ctx, images[0].Name, image.UnpackOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(unpacked.Dirs, unpacked.Notes)
}
