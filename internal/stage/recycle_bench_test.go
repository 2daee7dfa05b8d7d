//go:build linux

package stage

import "testing"

// BenchmarkRecycle is what it costs to see that a network namespace is as good as new, beside making one and ending it.
func BenchmarkRecycle(b *testing.B) {
	b.Run("look", func(b *testing.B) {
		n, err := TakeRecyclable()
		if err != nil {
			b.Fatal(err)
		}
		defer n.Close()
		for b.Loop() {
			if !n.Unused() {
				b.Fatal("used")
			}
		}
	})
	b.Run("make", func(b *testing.B) {
		for b.Loop() {
			n, err := TakeRecyclable()
			if err != nil {
				b.Fatal(err)
			}
			n.Close()
		}
	})
}
