// Command pull fetches an image from a registry into a store, and shows how far each layer is.
//
//	go run ./examples/pull alpine
//
// On a terminal there is a bar for each layer, otherwise a line when one is done. It needs Linux and no privilege.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/term"

	"github.com/caisson-go/caisson/image"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("store", "", "`DIR` of the store; default: that of the user")
	plain := flag.Bool("plain-http", false, "speak to the registry without TLS")
	all := flag.Bool("all-platforms", false, "fetch the image for all platforms")
	referrers := flag.Bool("referrers", false, "fetch signatures and the like too")
	ca := flag.String("ca", "", "trust the authorities in `FILE` (PEM) too")
	cert := flag.String("cert", "", "show the registry the client certificate in `FILE` (PEM)")
	key := flag.String("key", "", "`FILE` of its key")
	var mirrors []string
	flag.Func("mirror", "ask `HOST` first; may be repeated", func(s string) error { mirrors = append(mirrors, s); return nil })
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: pull [-store DIR] [-plain-http] [-all-platforms] [-referrers] [-ca FILE] [-cert FILE -key FILE] [-mirror HOST] IMAGE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := image.PullOptions{AllPlatforms: *all, Referrers: *referrers, RegistryOptions: image.RegistryOptions{PlainHTTP: *plain}}
	ref, err := image.ParseReference(flag.Arg(0))
	if err == nil {
		o.Mirrors = map[string][]string{ref.Registry: mirrors}
		err = certificates(&o.RegistryOptions, ref.Registry, *ca, *cert, *key)
	}
	if err != nil {
		log.Fatal(err)
	}
	if err := pull(ctx, *dir, flag.Arg(0), o); err != nil {
		log.Fatal(err)
	}
}

// certificates reads those of authorities, which count for mirrors too, and the client's, which the registry and the servers that it names are shown, and no mirror.
func certificates(o *image.RegistryOptions, registry, ca, cert, key string) error {
	if ca != "" {
		data, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(data) {
			return fmt.Errorf("no certificate in %s", ca)
		}
		o.TLS = &tls.Config{RootCAs: roots}
	}
	if cert == "" && key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	own := &tls.Config{Certificates: []tls.Certificate{pair}}
	if o.TLS != nil {
		own.RootCAs = o.TLS.RootCAs
	}
	o.TLSFor = func(host string) *tls.Config {
		if host != registry {
			return nil
		}
		return own
	}
	return nil
}

func pull(ctx context.Context, dir, name string, o image.PullOptions) error {
	if dir == "" {
		var err error
		if dir, err = image.DefaultDir(); err != nil {
			return err
		}
	}
	store, err := image.Open(dir, image.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	var b board
	if width, _, err := term.GetSize(int(os.Stderr.Fd())); err == nil {
		b.start(os.Stderr, width)
	} else {
		b.lines = os.Stderr
	}
	o.Progress = b.tell
	img, err := store.Pull(ctx, name, o)
	b.stop()
	if err != nil {
		return err
	}
	fmt.Println(img.Descriptor.Digest)
	info, err := store.Inspect(ctx, img.Name, o.Platform)
	if errors.Is(err, image.ErrPlatform) || errors.Is(err, image.ErrMediaType) {
		return nil // no image of this machine's, or an artifact
	}
	if err != nil {
		return err
	}
	fmt.Printf("%s: layers: %d, %s\n", img.Name, len(info.Layers), size(info.Size))
	return nil
}

// board shows how far blobs are. Progress comes from several goroutines, often; a terminal is drawn ten times a second.
type board struct {
	mu    sync.Mutex
	order []digest.Digest
	state map[digest.Digest]image.Progress
	lines io.Writer // not a terminal
	drawn int       // lines on the terminal
	done  chan struct{}
	over  chan struct{}
}

func (b *board) tell(p image.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == nil {
		b.state = map[digest.Digest]image.Progress{}
	}
	if _, ok := b.state[p.Digest]; !ok {
		b.order = append(b.order, p.Digest)
	}
	b.state[p.Digest] = p
	if b.lines != nil && p.Done == p.Total {
		fmt.Fprintln(b.lines, line(p, 0))
	}
}

// start draws on a terminal until stop.
func (b *board) start(w io.Writer, width int) {
	b.done, b.over = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(b.over)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.draw(w, width)
			case <-b.done:
				b.draw(w, width)
				return
			}
		}
	}()
}

func (b *board) stop() {
	if b.done != nil {
		close(b.done)
		<-b.over
	}
}

func (b *board) draw(w io.Writer, width int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA", b.drawn) // up again
	}
	for _, d := range b.order {
		fmt.Fprintf(&out, "\r\x1b[K%s\n", line(b.state[d], width-46))
	}
	b.drawn = len(b.order)
	io.WriteString(w, out.String())
}

// line is one blob, with a bar if there is room.
func line(p image.Progress, width int) string {
	s := fmt.Sprintf("%.12s %9s of %9s", p.Digest.Encoded(), size(p.Done), size(p.Total))
	if width >= 10 {
		n := int(int64(width) * p.Done / max(p.Total, 1))
		s += " [" + strings.Repeat("#", n) + strings.Repeat(" ", width-n) + "]"
	}
	if p.Cached {
		s += " there"
	}
	return s
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if n >= unit.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
