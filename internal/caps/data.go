package caps

// Version3 is _LINUX_CAPABILITY_VERSION_3, the header version that goes with
// [Data]: 64-bit sets in two halves, Linux 2.6.26.
const Version3 = 0x20080522

// A Header is struct __user_cap_header_struct of capget(2) and capset(2).
type Header struct {
	Version uint32 // Version3
	Pid     int32  // 0 is the calling thread, the only one capset takes
}

// Data is the struct __user_cap_data_struct[2] of capget(2) and capset(2):
// element 0 has capabilities 0 to 31, element 1 the rest. Its layout is the
// kernel's, so a pointer to it can be passed as it stands.
type Data [2]struct{ Effective, Permitted, Inheritable uint32 }

// Encode packs three sets for capset(2).
func Encode(effective, permitted, inheritable Set) (d Data) {
	for i := range d {
		shift := 32 * i
		d[i].Effective = uint32(effective >> shift)
		d[i].Permitted = uint32(permitted >> shift)
		d[i].Inheritable = uint32(inheritable >> shift)
	}
	return d
}

// Decode is the inverse of [Encode].
func (d Data) Decode() (effective, permitted, inheritable Set) {
	for i := range d {
		shift := 32 * i
		effective |= Set(d[i].Effective) << shift
		permitted |= Set(d[i].Permitted) << shift
		inheritable |= Set(d[i].Inheritable) << shift
	}
	return effective, permitted, inheritable
}
