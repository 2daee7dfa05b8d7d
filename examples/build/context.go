package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/caisson-go/caisson/rootfs"
)

// context is the directory of the build, without what .dockerignore names. It is opened as a rootfs.Root: whatever links a
// stranger's repository holds, none leads out of it.
type buildContext struct {
	root *rootfs.Root
	mu   sync.Mutex // of the matcher
	skip *patternmatcher.PatternMatcher
}

func openContext(dir string) (*buildContext, error) {
	root, err := rootfs.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &buildContext{root: root}, nil
}

func (c *buildContext) Close() error { return c.root.Close() }

// readDockerfile reads the Dockerfile, "-" being standard input, and the patterns of its own .dockerignore, or that of the context.
func (c *buildContext) readDockerfile(dir, file string, stdin io.Reader) (*dockerfile, error) {
	data, shown, err := c.dockerfileText(dir, file, stdin)
	if err != nil {
		return nil, err
	}
	own := []byte(nil)
	if file != "-" {
		own, err = os.ReadFile(filepath.Join(filepath.Dir(shown), filepath.Base(shown)+".dockerignore"))
	}
	if file == "-" || errors.Is(err, fs.ErrNotExist) {
		if own, err = c.root.ReadFile(".dockerignore", maxDockerfile); errors.Is(err, fs.ErrNotExist) {
			own, err = nil, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if err := c.ignore(string(own)); err != nil {
		return nil, err
	}
	return parseDockerfile(shown, data)
}

func (c *buildContext) dockerfileText(dir, file string, stdin io.Reader) (data []byte, shown string, err error) {
	switch {
	case file == "-":
		data, err = io.ReadAll(io.LimitReader(stdin, maxDockerfile+1))
		return data, "stdin", err
	case file != "": // a path of the caller's, not of the context's
		f, err := os.Open(file)
		if err != nil {
			return nil, "", err
		}
		defer f.Close()
		data, err = io.ReadAll(io.LimitReader(f, maxDockerfile+1))
		return data, file, err
	}
	data, err = c.root.ReadFile("Dockerfile", maxDockerfile)
	if err != nil {
		return nil, "", fmt.Errorf("%w; -f names another file", err)
	}
	return data, filepath.Join(dir, "Dockerfile"), nil
}

// ignore takes patterns, one a line, as .dockerignore has them.
func (c *buildContext) ignore(text string) error {
	patterns, err := ignorefile.ReadAll(strings.NewReader(text))
	if err != nil {
		return fmt.Errorf(".dockerignore: %w", err)
	}
	if len(patterns) == 0 {
		return nil
	}
	if c.skip, err = patternmatcher.New(patterns); err != nil {
		return fmt.Errorf(".dockerignore: %w", err)
	}
	return nil
}

func (c *buildContext) ignored(p string) (bool, error) {
	if c.skip == nil || p == "" {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skip.MatchesOrParentMatches(p)
}

// visible says whether a file takes part. A directory that is ignored does if a pattern with "!" lets something in it through.
func (c *buildContext) visible(p string, dir bool) (bool, error) {
	skip, err := c.ignored(p)
	if err != nil || !skip {
		return err == nil, err
	}
	if !dir || !c.skip.Exclusions() {
		return false, nil
	}
	entries, err := c.root.ReadDir("/" + p)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if ok, err := c.visible(path.Join(p, e.Name()), e.IsDir()); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (c *buildContext) lstat(p string) (*node, error) {
	info, err := c.root.Lstat("/" + p)
	if err != nil {
		return nil, err
	}
	ok, err := c.visible(p, info.IsDir())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w (.dockerignore leaves it out)", fs.ErrNotExist)
	}
	n := nodeOf(info)
	n.uid, n.gid = 0, 0 // who owns the files of a repository means nothing in an image
	if p == "" {
		n.mode = fs.ModeDir | 0o755
	}
	if n.isLink() {
		n.link, err = c.root.ReadLink(p)
	}
	return n, err
}

func (c *buildContext) list(p string) ([]string, error) {
	entries, err := c.root.ReadDir("/" + p)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		ok, err := c.visible(path.Join(p, e.Name()), e.IsDir())
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, e.Name())
		}
	}
	return sorted(out), nil
}

func (c *buildContext) open(p string) (io.ReadCloser, error) { return c.root.Open(p) }
