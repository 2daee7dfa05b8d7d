// Package testutil holds what the tests of several packages share: small root filesystems, roles that a test
// binary plays when it runs itself again, and a check that nothing is left behind. Product code does not import it.
package testutil
