//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/image"
)

func nodeOf(info fs.FileInfo) *node {
	return &node{mode: info.Mode(), size: info.Size(), mtime: info.ModTime()}
}

type layersTree struct {
	owners func(int) (map[string]attributes, error)
}

func newLayersTree([]string) (*layersTree, error)      { return nil, errors.ErrUnsupported }
func (*layersTree) Close() error                       { return nil }
func (*layersTree) lstat(string) (*node, error)        { return nil, errors.ErrUnsupported }
func (*layersTree) list(string) ([]string, error)      { return nil, errors.ErrUnsupported }
func (*layersTree) open(string) (io.ReadCloser, error) { return nil, errors.ErrUnsupported }
func (*layersTree) places(string) ([]string, error)    { return nil, errors.ErrUnsupported }
func lockCache(context.Context, string, instructions.ShareMode) (func() error, bool, error) {
	return nil, false, errors.ErrUnsupported
}

func (s *stage) changes(context.Context, *pending, *caisson.Container, string, *image.TreeOptions) (image.Tree, error) {
	return image.Tree{}, errors.ErrUnsupported
}
