//go:build linux

package examples_test

import (
	"strings"
	"testing"
)

// TestLayers: the layer that a container makes has what it changed, deletions included, and the one below stays as it is.
func TestLayers(t *testing.T) {
	asEach(t, func(t *testing.T, c caller) {
		r := c.run(t, "layers")
		r.want(t, 0, `data/\.wh\.old  \(a whiteout: old is deleted\)$`, `etc/\.wh\.secret  \(a whiteout`, `^   layer 2: etc/secret is a character device 0, 0$`, `^   layer 1: etc/secret is a file of 12 bytes$`,
			`the stack of "second": true$`, `^   first    sees \[hello greeting secret\]$`, `^   second   sees \[changed greeting\]$`, `^   afterwards the layer still says: hello$`)
		_, change, _ := strings.Cut(r.stdout, "2. ")
		change, _, _ = strings.Cut(change, "3. ")
		if strings.Contains(change, "etc/hosts") || strings.Contains(change, "bin") {
			t.Errorf("the layer has more than the changes: %v", r)
		}
	})
}
