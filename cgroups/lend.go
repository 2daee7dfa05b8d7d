package cgroups

import (
	"strconv"
	"strings"
)

// ControllersOwner is the name under which a [Manager] records, in the journal that recovery reads, that it has enabled
// controllers in a group that is not its own; [UndoControllers] undoes such an entry, and [InheritControllers] takes it over.
const ControllersOwner = "cgroups.controllers"

// A loan says which controllers this package has enabled for the children of a group that is not its own, to take them
// back when they are not needed any more. It stands on the directory itself, as an extended attribute, so that it holds
// for every program and ends with the directory:
//
//	user.caisson.enabled="8421 hugetlb,misc"
//
// The number is the inode of the newest child when the first of them was enabled. Inodes of cgroup directories
// grow (Linux 5.5, on 64-bit machines), so a child with a greater one was made since then, and may count on the controllers. Those that
// are older did without.
type loan struct {
	newest      uint64
	controllers Controllers
}

const loanAttr = "caisson.enabled"

func (l loan) String() string {
	return strconv.FormatUint(l.newest, 10) + " " + l.controllers.String()
}

// parseLoan is lenient: what is not understood is no loan, since nothing may be taken back for it.
func parseLoan(text string) (l loan) {
	number, list, _ := strings.Cut(text, " ")
	n, err := strconv.ParseUint(number, 10, 64)
	c := controllersOf(list) &^ core
	if err != nil || c == 0 {
		return loan{}
	}
	return loan{n, c}
}

// frequent are the controllers that nearly every group is made with. To enable and disable them again for each would cost more than
// the group itself, so they stay a moment longer.
const frequent = CPU | CPUSet | Memory | Pids | IO
