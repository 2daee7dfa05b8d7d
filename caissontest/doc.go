// Package caissontest helps programs that use caisson to test themselves: a root filesystem that needs no download
// and no other program, requirements that skip a test honestly, and a check that nothing is left behind.
//
//	func TestJobIsLimited(t *testing.T) {
//		caissontest.NeedLimits(t, cgroups.Memory)
//		caissontest.NoLeaks(t)
//		_, res := caissontest.Run(t, caissontest.Rootfs(), caisson.WithMemory(32<<20), caisson.WithCommand("/bin/eat"))
//		if res.Reason != caisson.ReasonOOM {
//			t.Errorf("ended with %v", res)
//		}
//	}
//
// # The programs of the root filesystem
//
// [Rootfs] holds a few static programs of some kilobytes each, in /bin. They have no C library, read no files and
// make a handful of system calls, so that what a test sees is the container and not the program:
//
//	true, false   exit with 0, with 1
//	cat           copies its standard input to its standard output
//	pause         waits until it is killed
//	spin          uses CPU time until it is killed
//	eat           uses more and more memory until it is killed
//	flood         writes to its standard output without end
//	fork          starts copies of itself, as many as it may, which then wait
//
// [Exit] and [Print] make others.
//
// # Skips
//
// A test that needs what the machine lacks is skipped with the reason and the remedy. Where nothing may be skipped,
// as in continuous integration, set CAISSONTEST_REQUIRE=1: then it fails instead.
package caissontest
