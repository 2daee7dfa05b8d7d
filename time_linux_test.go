package caisson

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// The clock of a container with an offset goes ahead of the host's, in each way a user namespace comes about.
func TestTimeOffsets(t *testing.T) {
	set := namespaces.Set{TimeOffsets: namespaces.TimeOffsets{Boottime: 100 * 24 * time.Hour}}
	for name, opts := range map[string][]Option{
		"directory":      {},
		"host":           {WithRootfs(rootfs.Host())},
		"user namespace": {WithNamespace(namespaces.User, namespaces.New())},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "user namespace" && isRoot() {
				opts = append(opts, WithRootfs(rootfs.Host()))
			}
			all := append([]Option{WithNamespaces(set), WithCommand("cat", "/proc/uptime")}, opts...)
			f := strings.Fields(output(t, all...))
			up, err := strconv.ParseFloat(f[0], 64)
			if err != nil || up < 100*24*3600 {
				t.Errorf("up for %v seconds: %v", f, err)
			}
		})
	}
}
