package image

import (
	"errors"
	"runtime"
	"time"
)

// Limits bound what a hostile image may cost. A field that is zero has its default; where a limit is met the error is a
// [*LimitError] that names the field.
type Limits struct {
	// Bytes is how much the layers of one image may unpack to, all together: contents of files, headers and padding,
	// holes of sparse files included. Default 64 GiB.
	Bytes int64
	// Entries is how many entries the layers of one image may have, all together. Default 4,000,000.
	Entries int64
	// Ratio is how many times larger than its blob a layer may be; it is asked once more than 64 MiB have been unpacked. gzip reaches 1032.
	// Default 1100.
	Ratio int64
	// Depth is how many components the path of an entry may have. Default 2048, which is what a path of 4095 bytes can have.
	Depth int64
	// Xattrs is how many extended attributes an entry may have. Default 128.
	Xattrs int64
	// Memory is what unpacking may take for buffers, decoders and what is remembered until a layer is complete, in bytes, all layers that are unpacked at once
	// together; layers wait for one another where it does not suffice for all. A zstd window that alone does not fit is refused; a later frame of a layer with a larger one than those
	// before gets it when what these had is given back. Default 96 MiB, with which the whole stays below 128 MiB. While a layer has
	// a window of more than 8 MiB Go's collector would let as much again lie (GOGC, GOMEMLIMIT), so it is run after every 8192 entries, and at the end what is free
	// goes back to the system. Where layers are made, up to two thirds of it go to names of files that have several.
	Memory int64
	// Headers is what [Store.Squash] may take, beside Memory, for the headers of all entries of the layers that become one, in bytes: some 600 for a file.
	// Default 1 GiB.
	Headers int64
	// Parallel is how many layers are unpacked, fetched or sent at once. Default: the number of CPUs that Go uses, 2 to 8.
	Parallel int64
	// Time is how long the unpacking of one image may take. Default: as long as the context allows.
	Time time.Duration
}

// ratioFrom is from how many bytes on Limits.Ratio counts: small layers compress as they like.
const ratioFrom = 64 << 20

// checkRatio refuses what has become too large for what was read of it.
func (l Limits) checkRatio(total, read int64) error {
	if total > ratioFrom && total/l.Ratio > read {
		return &LimitError{Limit: "Ratio", Max: l.Ratio}
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	def(&l.Bytes, 64<<30)
	def(&l.Entries, 4_000_000)
	def(&l.Ratio, 1100)
	def(&l.Depth, 2048)
	def(&l.Xattrs, 128)
	def(&l.Memory, 96<<20)
	def(&l.Headers, 1<<30)
	def(&l.Parallel, int64(min(max(runtime.GOMAXPROCS(0), 2), 8)))
	return l
}

// minMemory is what one gzip layer needs.
const minMemory = 8 << 20

func (l Limits) check() error {
	var faults []error
	for name, v := range map[string]int64{"Bytes": l.Bytes, "Entries": l.Entries, "Ratio": l.Ratio, "Depth": l.Depth, "Xattrs": l.Xattrs,
		"Memory": l.Memory, "Headers": l.Headers, "Parallel": l.Parallel, "Time": int64(l.Time)} {
		if v < 0 {
			faults = append(faults, because(errInvalid, "Limits.%s is negative", name))
		}
	}
	if l.Memory > 0 && l.Memory < minMemory {
		faults = append(faults, because(errInvalid, "Limits.Memory is less than %d", minMemory))
	}
	return errors.Join(faults...)
}

// Policy says how layers are unpacked. The zero value is the default.
type Policy struct {
	// Devices says what is done with device nodes. Default [DevicesAllowed].
	Devices DevicePolicy
	// NoSetuid leaves out set-user-ID and set-group-ID bits of files, and file capabilities.
	NoSetuid bool
	// Owners says to whom files belong that an ordinary user unpacks. Default [OwnersCaller].
	Owners OwnerPolicy
	// AnyNames accepts names that are not UTF-8.
	AnyNames bool
}

// DevicePolicy says what is done with the device nodes of a layer.
type DevicePolicy int

const (
	// DevicesAllowed makes them where the caller may (CAP_MKNOD in the first user namespace), and otherwise leaves them out and counts them as
	// skipped. A container's root filesystem is mounted nodev, so that they cannot be used in it.
	DevicesAllowed DevicePolicy = iota
	// DevicesSkipped leaves them out.
	DevicesSkipped
	// DevicesRefused makes them an error.
	DevicesRefused
)

func (p Policy) check() error {
	if p.Devices < DevicesAllowed || p.Devices > DevicesRefused {
		return because(errInvalid, "Policy.Devices is %d", p.Devices)
	}
	if p.Owners < OwnersCaller || p.Owners > OwnersMapped {
		return because(errInvalid, "Policy.Owners is %d", p.Owners)
	}
	return nil
}
