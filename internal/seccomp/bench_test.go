package seccomp

import (
	"testing"

	"github.com/caisson-go/caisson/internal/caps"
)

func BenchmarkCompileDefault(b *testing.B) {
	for b.Loop() {
		p, err := Default(AMD64, caps.Default)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Compile(p, AMD64); err != nil {
			b.Fatal(err)
		}
	}
}

// Once compiled.
func BenchmarkDefaultProgram(b *testing.B) {
	for b.Loop() {
		if _, err := DefaultProgram(AMD64, caps.Default); err != nil {
			b.Fatal(err)
		}
	}
}
