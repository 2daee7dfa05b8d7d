module github.com/caisson-go/caisson/examples

go 1.26.0

require (
	github.com/caisson-go/caisson v0.1.0
	github.com/opencontainers/runtime-spec v1.3.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
	golang.org/x/term v0.47.0
)
