package caisson

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A monitor needs a good part of its program to start a container, and little of it afterwards. What it does not need is given
// back: free memory to the kernel, and the pages of the program's file, which stay in the page cache and are mapped again where
// they are touched. That of files counts as resident, whoever else has it mapped (proc(5), VmRSS).

// trimAfter is how long after a start that is done: what follows at once is over then.
const trimAfter = 200 * time.Millisecond

// trimEvery is how often is looked whether more than trimAbove is resident, in bytes: health checks and those who ask for
// something touch this and that.
const (
	trimEvery = 30 * time.Second
	trimAbove = 6 << 20
)

// resident is how much memory the program has, in bytes; 0 where that cannot be read.
func resident() int {
	b, err := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n * os.Getpagesize()
}

// trim gives back what is not needed at the moment.
func trim() {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, r := range fileMappings(bufio.NewScanner(f)) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED)
	}
}

type addressRange struct{ start, end uintptr }

// fileMappings lists the mappings of files that cannot be written, and of which no page differs from the file: such a page
// would be lost.
//
//	00400000-0088c000 r-xp 00000000 fe:00 1234      /usr/bin/program
//	Size:               4656 kB
//	…
//	Anonymous:             0 kB
func fileMappings(sc *bufio.Scanner) (out []addressRange) {
	var at addressRange
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) >= 5 && strings.Contains(f[0], "-") {
			at = addressRange{}
			from, to, _ := strings.Cut(f[0], "-")
			start, err1 := strconv.ParseUint(from, 16, 8*int(unsafe.Sizeof(at.start)))
			end, err2 := strconv.ParseUint(to, 16, 8*int(unsafe.Sizeof(at.end)))
			if err1 == nil && err2 == nil && (f[1] == "r-xp" || f[1] == "r--p") && f[4] != "0" {
				at = addressRange{uintptr(start), uintptr(end)}
			}
			continue
		}
		if len(f) == 3 && f[0] == "Anonymous:" && f[1] == "0" && at.end > at.start {
			out = append(out, at)
			at = addressRange{}
		}
	}
	return out
}
