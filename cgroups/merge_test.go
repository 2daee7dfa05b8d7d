package cgroups

import (
	"reflect"
	"testing"
	"time"
)

// Every field that Update sets is taken over, those that will be added too.
func TestMergeTakesEveryField(t *testing.T) {
	var each func(path string, get func(*Resources) reflect.Value)
	each = func(path string, get func(*Resources) reflect.Value) {
		var r Resources
		v := get(&r)
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				each(path+"."+v.Type().Field(i).Name, func(r *Resources) reflect.Value { return get(r).Field(i) })
			}
			return
		case reflect.Map:
			m := reflect.MakeMap(v.Type())
			m.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), reflect.Zero(v.Type().Elem()))
			v.Set(m)
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.String:
			v.SetString("x")
		case reflect.Float64:
			v.SetFloat(1.5)
		default:
			v.SetInt(1)
		}
		merged := (Resources{}).Merge(r)
		if got := get(&merged); !reflect.DeepEqual(got.Interface(), v.Interface()) {
			t.Errorf("%s is lost: %v", path, got)
		}
	}
	each("Resources", func(r *Resources) reflect.Value { return reflect.ValueOf(r).Elem() })
}

func TestMerge(t *testing.T) {
	old := Resources{
		Memory:  MemoryResources{Max: 64 << 20, Swap: Zero},
		CPU:     CPUResources{CPUs: 2, Weight: 50},
		HugeTLB: map[string]int64{"2MB": 1, "1GB": 2},
		IO:      IOResources{Devices: []IODevice{{Major: 8, ReadBPS: 1, WriteBPS: 2}}},
	}
	got := old.Merge(Resources{
		Memory:  MemoryResources{Max: 32 << 20},
		CPU:     CPUResources{Quota: 5 * time.Millisecond, Idle: On},
		HugeTLB: map[string]int64{"2MB": 3},
		IO:      IOResources{Devices: []IODevice{{Major: 8, WriteBPS: 3}, {Major: 9, ReadBPS: 4}}},
	})
	want := Resources{
		Memory:  MemoryResources{Max: 32 << 20, Swap: Zero},
		CPU:     CPUResources{Quota: 5 * time.Millisecond, Idle: On},
		HugeTLB: map[string]int64{"2MB": 3, "1GB": 2},
		IO:      IOResources{Devices: []IODevice{{Major: 8, ReadBPS: 1, WriteBPS: 3}, {Major: 9, ReadBPS: 4}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if old.HugeTLB["2MB"] != 1 || old.IO.Devices[0].WriteBPS != 2 {
		t.Error("the old limits were changed")
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	if got := (Resources{CPU: CPUResources{Idle: On}}).Merge(Resources{CPU: CPUResources{Weight: 9}}); got.Validate() != nil {
		t.Error(got.Validate())
	}
}
