//go:build !linux

package main

import (
	"errors"
	"io"
	"io/fs"
)

func nodeOf(info fs.FileInfo) *node {
	return &node{mode: info.Mode(), size: info.Size(), mtime: info.ModTime()}
}

type layersTree struct{}

func newLayersTree([]string) (*layersTree, error)        { return nil, errors.ErrUnsupported }
func (*layersTree) Close() error                         { return nil }
func (*layersTree) lstat(string) (*node, error)          { return nil, errors.ErrUnsupported }
func (*layersTree) list(string) ([]string, error)        { return nil, errors.ErrUnsupported }
func (*layersTree) open(string) (io.ReadCloser, error)   { return nil, errors.ErrUnsupported }
func (*layersTree) places(string) ([]string, error)      { return nil, errors.ErrUnsupported }
func lockCache(string, bool) (func() error, bool, error) { return nil, false, errors.ErrUnsupported }
