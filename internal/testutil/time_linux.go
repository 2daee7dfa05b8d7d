package testutil

import (
	"os"
	"strconv"
	"time"
)

// SlowEnv names the environment variable that says how many times slower than others this machine is. The suite in
// virtual machines sets it, since an emulated processor is.
const SlowEnv = "CAISSON_TEST_SLOW"

// Slow says whether this machine is known to be slow: there, tests that repeat things do so less often.
func Slow() bool { return Time(1) > 1 }

// Time is how long a test waits on this machine for what takes others at most d.
func Time(d time.Duration) time.Duration {
	n, err := strconv.Atoi(os.Getenv(SlowEnv))
	if err != nil || n < 1 {
		return d
	}
	return d * time.Duration(n)
}
