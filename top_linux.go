package caisson

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/namespaces"
)

func (r *running) top(ctx context.Context) ([]ProcessInfo, error) {
	pids, err := r.pids()
	if err != nil {
		return nil, err
	}
	now, boot, err := clocks()
	if err != nil {
		return nil, err
	}
	maps := uidMap(r.child.Pid)
	var list []ProcessInfo
	for _, pid := range pids[:min(len(pids), maxTop)] {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if i, ok := lookAt(pid, now, boot, maps); ok {
			list = append(list, i)
		}
	}
	if len(list) == 0 && len(pids) > 0 && unix.Kill(r.child.Pid, 0) != unix.ESRCH {
		return nil, fmt.Errorf("%w: /proc does not show the container's processes; it may be mounted with hidepid", ErrPrivilege)
	}
	// The number of a process that ended may have been given to a stranger before it was looked at; but then it is not
	// the container's now.
	still, err := r.pids()
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i ProcessInfo) bool {
		_, found := slices.BinarySearch(still, i.PID)
		return !found
	})
	return list, nil
}

// pids lists the container's processes in order, as far as this pid namespace sees them.
func (r *running) pids() ([]int, error) {
	if r.group != nil {
		list, err := r.group.AllProcs()
		if goneGroup(err) {
			return nil, nil
		}
		i, _ := slices.BinarySearch(list, 1) // 0 stands for one that is not seen
		return list[i:], err
	}
	all, err := allProcesses()
	if err != nil {
		return nil, err
	}
	var list []int
	if r.m.newPID {
		ns := pidNamespaceOf(r.child.Pid)
		for pid := range all {
			if ns != "" && pidNamespaceOf(pid) == ns {
				list = append(list, pid)
			}
		}
	} else {
		for pid := range all {
			if descends(pid, r.child.Pid, all) {
				list = append(list, pid)
			}
		}
	}
	slices.Sort(list)
	return list, nil
}

func pidNamespaceOf(pid int) string {
	s, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	return s
}

// descends says whether a process is root or comes from it.
func descends(pid, root int, parents map[int]int) bool {
	for range len(parents) + 1 {
		if pid == root {
			return true
		}
		parent, ok := parents[pid]
		if !ok || parent == 0 {
			return false
		}
		pid = parent
	}
	return false
}

// allProcesses maps every process of the machine to its parent.
func allProcesses() (map[int]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := map[int]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		var i ProcessInfo
		text, err := os.ReadFile("/proc/" + name + "/stat")
		if _, ok := parseStat(string(text), &i); ok && err == nil {
			all[pid] = i.PPID
		}
	}
	return all, nil
}

// lookAt reads one process. All files are read below one descriptor, which stays that of the process that had the number
// when it was opened.
func lookAt(pid int, now, boot time.Time, maps []namespaces.IDMap) (i ProcessInfo, ok bool) {
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return i, false
	}
	defer unix.Close(dir)
	buf := make([]byte, maxCmdline+1)
	i.PID = pid
	start, ok := parseStat(string(readProc(dir, "stat", buf)), &i)
	if !ok || !parseStatus(string(readProc(dir, "status", buf)), &i) {
		return i, false
	}
	i.Args, i.ArgsCut = parseCmdline(readProc(dir, "cmdline", buf), maxCmdline)
	i.RSS *= uint64(os.Getpagesize())
	i.ContainerUID = 65534
	if id, ok := namespaces.ToContainer(maps, i.UID); ok {
		i.ContainerUID = id
	}
	i.Started = boot.Add(time.Duration(start) * (time.Second / userHZ))
	if i.Started.After(now) {
		i.Started = now
	}
	return i, true
}

// readProc reads the beginning of a file, as much as buf holds.
func readProc(dir int, name string, buf []byte) []byte {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		k, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if k <= 0 || err != nil {
			break
		}
		n += k
	}
	return buf[:n]
}

// clocks returns the time, and when the machine was started, as the kernel counts for /proc.
func clocks() (now, boot time.Time, err error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return now, boot, os.NewSyscallError("clock_gettime", err)
	}
	now = time.Now()
	return now, now.Add(-time.Duration(ts.Nano())).Round(0), nil
}

// uidMap reads the user ids of the container's first process; nil if it cannot be read.
func uidMap(pid int) []namespaces.IDMap {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/uid_map")
	if err != nil {
		return nil
	}
	m, err := namespaces.ParseIDMaps(string(text))
	if err != nil {
		return nil
	}
	slices.SortFunc(m, func(a, b namespaces.IDMap) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
	return m
}
