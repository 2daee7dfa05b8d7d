//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A table is one architecture's system calls.
type table map[string]int

// arches in the order of package seccomp's Arch constants, by the suffix of
// x/sys/unix's files. x32 has no file: it is made from amd64.
var arches = []string{"amd64", "386", "x32", "arm64", "arm", "riscv64"}

func readTables() (map[string]table, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return nil, fmt.Errorf("where is golang.org/x/sys: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "unix")
	all := map[string]table{}
	for _, arch := range arches {
		if arch == "x32" {
			continue
		}
		if all[arch], err = readTable(filepath.Join(dir, "zsysnum_linux_"+arch+".go")); err != nil {
			return nil, err
		}
	}
	all["x32"] = makeX32(all["amd64"])
	// The calls only the ARM kernel has, at __ARM_NR_BASE (arch/arm/include/uapi/asm/unistd.h).
	maps.Copy(all["arm"], table{
		"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003,
		"usr32": 0xf0004, "set_tls": 0xf0005, "get_tls": 0xf0006,
		"sync_file_range2": all["arm"]["arm_sync_file_range"], // two names in the header, one number
	})
	return all, nil
}

var constant = regexp.MustCompile(`^\s+SYS_(\w+)\s+= (\d+)$`)

func readTable(path string) (table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := table{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		m := constant.FindStringSubmatch(lines.Text())
		if m == nil || m[1] == "ARCH_SPECIFIC_SYSCALL" || m[1] == "SYSCALL_MASK" {
			continue // the last two are a range's base and a mask, not calls
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return nil, err
		}
		t[strings.ToLower(m[1])] = n
	}
	if len(t) < 300 {
		return nil, fmt.Errorf("%s: %d system calls; has the file changed its form?", path, len(t))
	}
	return t, lines.Err()
}

// Where x32 leaves amd64 (arch/x86/entry/syscalls/syscall_64.tbl): calls
// marked 64 that x32 has not, and those whose argument layout differs, which
// x32 has at 512 to 547. That range is closed: new calls are common to both.
var (
	only64 = []string{
		"uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl",
		"set_thread_area", "get_thread_area", "epoll_ctl_old", "epoll_wait_old", "vserver",
		"uretprobe", "uprobe", "map_shadow_stack",
	}
	onlyX32 = []string{
		"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg",
		"execve", "ptrace", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack",
		"timer_create", "mq_notify", "kexec_load", "waitid", "set_robust_list", "get_robust_list",
		"vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg",
		"process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit",
		"execveat", "preadv2", "pwritev2",
	}
)

func makeX32(amd64 table) table {
	t := maps.Clone(amd64)
	for _, name := range only64 {
		delete(t, name)
	}
	for i, name := range onlyX32 {
		t[name] = 512 + i
	}
	return t
}

// newest is the highest number of the range new calls are added to, which all
// architectures share.
func (t table) newest() int {
	newest := 0
	for _, n := range t {
		if n < 512 {
			newest = max(newest, n)
		}
	}
	return newest
}

// tableSource writes the names in order, in one string, and for each
// architecture the numbers in the same order. All of it is constant data: a
// program that never asks pays neither time nor heap for it.
func tableSource(all map[string]table) *bytes.Buffer {
	union := map[string]bool{}
	for _, t := range all {
		for name := range t {
			union[name] = true
		}
	}
	names := slices.Sorted(maps.Keys(union))
	b := bytes.NewBufferString(header)
	fmt.Fprintf(b, "const nameCount = %d\n\n", len(names))
	fmt.Fprintf(b, "// nameText holds every name, in order, end to end.\nconst nameText = \"\" +\n")
	ends, end := []string{}, 0
	for i, name := range names {
		end += len(name)
		ends = append(ends, strconv.Itoa(end))
		if i == len(names)-1 {
			fmt.Fprintf(b, "\t%q\n\n", name)
		} else {
			fmt.Fprintf(b, "\t%q +\n", name)
		}
	}
	fmt.Fprintf(b, "// nameEnd is where each name ends in nameText.\nvar nameEnd = [nameCount]uint16{%s}\n\n", wrap(ends))
	fmt.Fprintf(b, "// newest is the highest number of each architecture's table below its private range.\nvar newest = [archCount]uint32{")
	for _, arch := range arches {
		fmt.Fprintf(b, "%d, ", all[arch].newest())
	}
	b.WriteString("}\n\n// numbers has each architecture's number for each name; -1: no such call there.\nvar numbers = [archCount][nameCount]int32{\n")
	for _, arch := range arches {
		list := []string{}
		for _, name := range names {
			n, ok := all[arch][name]
			if !ok {
				n = -1
			}
			list = append(list, strconv.Itoa(n))
		}
		fmt.Fprintf(b, "\t{ // %s\n%s},\n", arch, wrap(list))
	}
	b.WriteString("}\n")
	return b
}

func wrap(items []string) string {
	var b strings.Builder
	for i, item := range items {
		if i%20 == 0 {
			b.WriteString("\n")
		}
		b.WriteString(item + ", ")
	}
	return b.String() + "\n"
}
