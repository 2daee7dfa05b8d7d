// Package imagetest holds tests of containers made of images: package caisson knows nothing of package image.
package imagetest
