// Package imagetest holds tests of containers made of images, and of images made of containers: package caisson and package image know nothing of
// each other.
package imagetest
