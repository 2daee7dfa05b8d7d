// Package caisson lets any Go program run Linux containers itself.
package caisson
