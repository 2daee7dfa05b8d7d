package cgroups

import "reflect"

// Merge returns the limits of a group that had r and was given over by [Group.Update]: what is zero in over stays as it is
// in r. Limits that exclude each other replace each other (CPUs and Quota with Period, Weight and Idle); maps and
// limits of devices are joined key by key. Neither argument is changed, nor shared with the result where they differ.
func (r Resources) Merge(over Resources) Resources {
	switch {
	case over.CPU.CPUs != 0:
		r.CPU.Quota, r.CPU.Period = 0, 0
	case over.CPU.Quota != 0:
		r.CPU.CPUs, r.CPU.Period = 0, 0
	}
	if over.CPU.Weight != 0 && r.CPU.Idle == On {
		r.CPU.Idle = Off
	}
	if over.CPU.Idle == On {
		r.CPU.Weight = 0
	}
	devices := mergeDevices(r.IO.Devices, over.IO.Devices)
	merge(reflect.ValueOf(&r).Elem(), reflect.ValueOf(over))
	r.IO.Devices = devices
	return r
}

// merge takes over every field of over that is not zero.
func merge(dst, over reflect.Value) {
	switch dst.Kind() {
	case reflect.Struct:
		for i := range dst.NumField() {
			merge(dst.Field(i), over.Field(i))
		}
	case reflect.Map:
		if over.Len() == 0 {
			return
		}
		joined := reflect.MakeMap(dst.Type())
		for _, m := range []reflect.Value{dst, over} {
			for i := m.MapRange(); i.Next(); {
				joined.SetMapIndex(i.Key(), i.Value())
			}
		}
		dst.Set(joined)
	default:
		if !over.IsZero() {
			dst.Set(over)
		}
	}
}

func mergeDevices(list, over []IODevice) []IODevice {
	out := append([]IODevice(nil), list...)
next:
	for _, d := range over {
		for i := range out {
			if out[i].Major == d.Major && out[i].Minor == d.Minor {
				merge(reflect.ValueOf(&out[i]).Elem(), reflect.ValueOf(d))
				continue next
			}
		}
		out = append(out, d)
	}
	return out
}
