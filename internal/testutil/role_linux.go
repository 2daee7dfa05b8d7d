package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// RoleEnv names the environment variable that makes a test binary play a role instead of testing.
const RoleEnv = "CAISSON_TEST_ROLE"

// Main runs the tests, or the role that the environment names. A test binary must play a role where the process
// itself is what is tested: it is to be killed, to be PID 1, to reap all children.
func Main(m *testing.M, roles map[string]func()) {
	name := os.Getenv(RoleEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	role := roles[name]
	if role == nil {
		fmt.Fprintln(os.Stderr, "no role", name)
		os.Exit(2)
	}
	os.Unsetenv(RoleEnv)
	role()
	os.Exit(0)
}

// Role returns a command that runs the test binary in a role. Its standard error is that of the tests.
func Role(name string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), RoleEnv+"="+name), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// RoleEnviron is what a process whose environment is not the tests' own needs to run the test binary in a role.
func RoleEnviron(name string) []string {
	return []string{RoleEnv + "=" + name, "GORACE=" + os.Getenv("GORACE")}
}
