package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/caisson-go/caisson/image"
)

// The cache is nothing but images: what a step made of its parent is an image in the store, whose name is made of all that the step
// depends on. So another program can look at it, the store's own rules keep it whole, and removing the names and
// collecting garbage empties it.
const cachePrefix = "cache.caisson.invalid/build:"

// cacheVersion changes when the same key would mean something else.
const cacheVersion = "1"

// cacheKey is the name of the image that a step makes: what was there before, how many steps had been done on it, and what the step
// depends on. What the parent's instructions were is of no concern.
func (s *stage) cacheKey(what ...string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %d %v\n", cacheVersion, platformName(s.platform), s.state.changes, s.b.epoch)
	for _, d := range s.state.diffIDs {
		fmt.Fprintln(h, d)
	}
	for _, w := range what {
		fmt.Fprintf(h, "%q\n", w)
	}
	return cachePrefix + hex.EncodeToString(h.Sum(nil))
}

// keyed is a name in the cache that takes time to find.
type keyed func() (string, error)

func always(key string) keyed { return func() (string, error) { return key, nil } }

// change does an instruction that changes files, unless the cache has what it leads to. Keys that cost less come first; the last is
// the one that decides.
func (s *stage) change(ctx context.Context, st *step, line string, keys []keyed, do func(ctx context.Context) (*pending, error)) (err error) {
	var missed []string
	for _, k := range keys {
		name, err := k()
		if err != nil {
			return err
		}
		unlock := s.b.lockKey(name)
		defer unlock()
		hit, err := s.lookUp(ctx, name)
		if err != nil {
			return err
		}
		missed = append(missed, name)
		if hit != nil {
			st.cached()
			s.adopt(hit)
			return s.b.alias(ctx, name, missed[:len(missed)-1])
		}
	}
	p, err := do(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	name := missed[len(missed)-1]
	if err := s.commit(ctx, p, line, name); err != nil {
		return err
	}
	s.b.noteFresh(missed...)
	return s.b.alias(ctx, name, missed[:len(missed)-1])
}

func (s *stage) lookUp(ctx context.Context, name string) (*image.Info, error) {
	if s.b.opts.noCache && !s.b.isFresh(name) {
		return nil, nil
	}
	info, err := s.b.store.Inspect(ctx, name, &s.platform)
	switch {
	case errors.Is(err, image.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case len(info.Config.Spec.History) == 0 || len(info.Layers) < len(s.state.diffIDs):
		return nil, nil
	}
	return info, nil
}

// adopt takes the layers of an image of the cache. What that says about its containers is of no concern.
func (s *stage) adopt(info *image.Info) {
	h := info.Config.Spec.History[len(info.Config.Spec.History)-1]
	st := &s.state
	st.lines = append(st.lines, line{history: h, layer: len(info.Layers) - 1})
	st.created = h.Created
	st.diffIDs, st.ref = info.Config.DiffIDs, info.Manifest.Digest.String()
	st.changes++
}

// alias gives what has one name in the cache further ones.
func (b *builder) alias(ctx context.Context, name string, more []string) error {
	for _, n := range more {
		if err := b.store.Tag(ctx, name, n); err != nil {
			return err
		}
	}
	return nil
}

// keys serialises steps that are the same in several stages: the second one finds what the first made.
type keys struct {
	mu    sync.Mutex
	locks map[string]*sync.Mutex
	fresh map[string]bool
}

func (k *keys) lockKey(name string) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks, k.fresh = map[string]*sync.Mutex{}, map[string]bool{}
	}
	l := k.locks[name]
	if l == nil {
		l = &sync.Mutex{}
		k.locks[name] = l
	}
	k.mu.Unlock()
	l.Lock()
	return l.Unlock
}

func (k *keys) noteFresh(names ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range names {
		k.fresh[n] = true
	}
}

// isFresh says that this build has made it, so that -no-cache may use it.
func (k *keys) isFresh(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fresh[name]
}

// prune empties the cache.
func (b *builder) prune(ctx context.Context) (int, error) {
	list, err := b.store.List(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, img := range list {
		if strings.HasPrefix(img.Name, cachePrefix) {
			if err := b.store.Remove(ctx, img.Name); err != nil {
				return n, err
			}
			n++
		}
	}
	_, err = b.store.GC(ctx)
	return n, err
}
