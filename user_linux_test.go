package caisson

import (
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

// TestAsUser runs all other tests again as a user without any privilege: most behaviour has to be the same.
func TestAsUser(t *testing.T) {
	if testing.Short() {
		t.Skip("repeats all tests")
	}
	testutil.RunAs(t, 65534, 65534, "-test.v")
}
