package seccomp

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

func TestKnownNumbers(t *testing.T) {
	for _, test := range []struct {
		arch Arch
		name string
		want uint32
	}{
		{AMD64, "read", 0}, {AMD64, "execve", 59}, {AMD64, "seccomp", 317}, {AMD64, "uretprobe", 335}, {AMD64, "rseq_slice_yield", 471},
		{I386, "read", 3}, {I386, "socketcall", 102}, {I386, "umount", 22}, {I386, "umount2", 52}, {I386, "clock_gettime64", 403},
		{X32, "read", x32Bit}, {X32, "execve", x32Bit | 520}, {X32, "ioctl", x32Bit | 514}, {X32, "clone3", x32Bit | 435},
		{ARM64, "read", 63}, {ARM64, "execve", 221}, {ARM64, "newfstatat", 79}, {ARM64, "renameat", 38},
		{ARM, "read", 3}, {ARM, "set_tls", 0xf0005}, {ARM, "cacheflush", 0xf0002}, {ARM, "sync_file_range2", 341}, {ARM, "arm_fadvise64_64", 270},
		{RISCV64, "read", 63}, {RISCV64, "riscv_flush_icache", 259}, {RISCV64, "riscv_hwprobe", 258},
	} {
		if got, ok := test.arch.Number(test.name); !ok || got != test.want {
			t.Errorf("%v %s: %d, %v; want %d", test.arch, test.name, got, ok, test.want)
		}
	}
	for _, absent := range []struct {
		arch Arch
		name string
	}{{ARM64, "open"}, {X32, "uselib"}, {X32, "uretprobe"}, {AMD64, "socketcall"}, {RISCV64, "renameat"}, {AMD64, ""}, {ARM64, "arch_specific_syscall"}, {0, "read"}} {
		if n, ok := absent.arch.Number(absent.name); ok {
			t.Errorf("%v has %q at %d", absent.arch, absent.name, n)
		}
	}
}

func TestNamesAreInOrderAndFound(t *testing.T) {
	for i := range nameCount {
		if i > 0 && nameAt(i-1) >= nameAt(i) {
			t.Errorf("%q before %q", nameAt(i-1), nameAt(i))
		}
		if at, ok := findName(nameAt(i)); !ok || at != i {
			t.Errorf("%q found at %d, %v", nameAt(i), at, ok)
		}
	}
}

// Every number fits the ranges the compiler builds on, and belongs to one
// name, but for the pair the ARM header aliases.
func TestNumbersFitTheRanges(t *testing.T) {
	for i := range archCount {
		a := Arch(i + 1)
		owner := map[uint32]string{}
		for j := range nameCount {
			n := numbers[i][j]
			if n < 0 {
				continue
			}
			p := archInfo[i].private
			if u := uint32(n); u > a.Newest() && (u < p.first || u > p.last) {
				t.Errorf("%v: %s = %d lies outside", a, nameAt(j), n)
			}
			if other := owner[uint32(n)]; other != "" && nameAt(j) != "sync_file_range2" {
				t.Errorf("%v: %s and %s share %d", a, other, nameAt(j), n)
			}
			owner[uint32(n)] = nameAt(j)
		}
	}
}

// The tables against this machine's own headers, where it has them: older,
// but independent of where the tables come from.
func TestAgainstHeaders(t *testing.T) {
	line := regexp.MustCompile(`(?m)^#define __NR_(\w+) (?:\(__X32_SYSCALL_BIT \+ )?(\d+)\)?$`)
	for arch, file := range map[Arch]string{AMD64: "unistd_64.h", I386: "unistd_32.h", X32: "unistd_x32.h"} {
		text, err := os.ReadFile("/usr/include/x86_64-linux-gnu/asm/" + file)
		if err != nil {
			t.Skipf("no kernel headers (linux-libc-dev): %v", err)
		}
		found := map[string]bool{}
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			n, _ := strconv.ParseUint(m[2], 10, 32)
			found[m[1]] = true
			if got, ok := arch.Number(m[1]); !ok || got != uint32(n)|arch.bit() {
				t.Errorf("%v: %s is %d in the header, %d, %v in the table", arch, m[1], n, got, ok)
			}
		}
		if len(found) < 340 {
			t.Fatalf("%s: only %d calls read", file, len(found))
		}
		for j := range nameCount {
			if n := numbers[arch-1][j]; n >= 0 && n <= 450 && !found[nameAt(j)] && !slices.Contains([]string{"uretprobe", "uprobe"}, nameAt(j)) {
				t.Errorf("%v: %s = %d is not in the header", arch, nameAt(j), n)
			}
		}
	}
}
