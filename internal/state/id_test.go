package state

import (
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

func TestValidID(t *testing.T) {
	testutil.SamePattern(t, ValidID, `^[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$`, "azAZ09_.+-/@[`{: \nü", 4,
		"", "a", "-a", ".", "..", "a/b", "a\n", "\x00", "é", "aé", strings.Repeat("a", 128), strings.Repeat("a", 129), "Web.1_2+3-4")
}
