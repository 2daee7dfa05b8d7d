package cgroups

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// pageSizes lists the huge page sizes of this machine as the hugetlb controller spells them.
var pageSizes = sync.OnceValue(func() (sizes []string) {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	for _, e := range entries { // hugepages-2048kB
		kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 32)
		if err == nil {
			sizes = append(sizes, pageSizeName(kb))
		}
	}
	return sizes
})

// pageSizeName writes 2048 as "2MB": the largest unit that leaves a whole number.
func pageSizeName(kb uint64) string {
	unit := 0
	for ; unit < 2 && kb >= 1024; unit++ {
		kb /= 1024
	}
	return strconv.FormatUint(kb, 10) + [...]string{"KB", "MB", "GB"}[unit]
}
