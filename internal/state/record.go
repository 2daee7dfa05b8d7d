package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caisson-go/caisson/internal/codec"
)

// Version is the version of the record that this package writes. It changes when an older reader would be wrong about a
// newer record; fields that may be ignored are added without a change.
const Version = 1

// versionMonitored is the version of a container with a monitor: who does not know of monitors would take its record for
// complete when another run follows.
const versionMonitored = 2

// maxRecord bounds what is read. A seccomp profile is the largest part.
const maxRecord = 4 << 20

// Errors.
var (
	// ErrCorrupt: a file is not what this package writes.
	ErrCorrupt = errors.New("corrupt state")
	// ErrVersion: the record was written by a newer release.
	ErrVersion = errors.New("state of an unknown version")
	// ErrExists: there is a container of that id.
	ErrExists = errors.New("exists already")
	// ErrNotFound: there is none.
	ErrNotFound = errors.New("no such container")
	// ErrBusy: another program is changing it at this moment.
	ErrBusy = errors.New("another program is changing it")
)

// Phases of a container's life, as they are recorded.
const (
	Creating = "creating" // its program is setting it up, or was killed while it did
	Created  = "created"  // it waits to be released
	Running  = "running"  // its command was begun; whether it still runs, the process tells
	Stopped  = "stopped"  // the result is recorded, and nothing of it is left but this directory

	Restarting = "restarting" // a run has ended, with the recorded result; its monitor sees to what follows
)

// Record is what is known about a container. See docs/state.md.
type Record struct {
	Version int               `json:"version"`
	ID      string            `json:"id"`
	BootID  string            `json:"bootID"`
	PIDNS   uint64            `json:"pidNamespace"` // in which the process ids below are
	UID     int               `json:"uid"`          // of the program that made it
	Phase   string            `json:"phase"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`

	Init   Process `json:"init,omitzero"`   // the container's first process
	Keeper Process `json:"keeper,omitzero"` // its parent, which records its end
	OwnPID bool    `json:"ownPIDs"`         // it has a pid namespace: all other processes end with the first

	CgroupName string            `json:"cgroupName,omitempty"` // noted before the group is made
	CgroupFrom map[string]string `json:"cgroupFrom,omitempty"` // the groups that its maker was in, by hierarchy: where the name is looked for
	Cgroup     map[string]string `json:"cgroup,omitempty"`     // its directory in each hierarchy, once it is made
	Things     []Thing           `json:"things,omitempty"`     // what owners have to undo
	Resctrl    json.RawMessage   `json:"resctrl,omitempty"`    // its groups of resctrl

	StopSignal int             `json:"stopSignal"`
	Command    []string        `json:"command"`
	Hostname   string          `json:"hostname,omitempty"`
	CgroupNS   bool            `json:"cgroupNamespace,omitempty"`
	Alone      bool            `json:"alone,omitempty"`     // it has no namespaces: its root directory is the host's
	Process    json.RawMessage `json:"process,omitempty"`   // what a further process of the container is allowed by default
	Filter     *Filter         `json:"filter,omitempty"`    // what the seccomp profile in Process was compiled to
	Isolation  json.RawMessage `json:"isolation,omitempty"` // what contains it
	Steps      []Step          `json:"steps,omitempty"`     // what a created container has left to do

	Limits json.RawMessage `json:"limits,omitempty"` // of the cgroup, as they are now
	Mounts []Mount         `json:"mounts,omitempty"` // what was mounted while it runs
	Ending string          `json:"ending,omitempty"` // why someone is ending it
	Result *Result         `json:"result,omitempty"` // how it ended

	// Of a container with a monitor.
	Monitor  Process         `json:"monitor,omitzero"`   // the program that supervises it
	Run      int             `json:"run,omitempty"`      // which run this is, from 1
	Restarts int             `json:"restarts,omitempty"` // how often it was started again by its policy
	Restart  string          `json:"restart,omitempty"`  // the policy's mode
	Halted   bool            `json:"halted,omitempty"`   // somebody stopped it: it is not to be started again
	Log      json.RawMessage `json:"log,omitempty"`      // where its output is logged
	Terminal bool            `json:"terminal,omitempty"` // it has a terminal

	// Of a container that was made from a bundle, or with hooks.
	Bundle string          `json:"bundle,omitempty"` // its directory
	Rootfs string          `json:"rootfs,omitempty"` // the directory that is its root filesystem
	Hooks  json.RawMessage `json:"hooks,omitempty"`  // programs that are still to be run

	MountLabel string `json:"mountLabel,omitempty"` // SELinux label of what is mounted for it

	Checkpoint json.RawMessage `json:"checkpoint,omitempty"` // what writing it to disk must know
}

// Process names a process so that no other is mistaken for it.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: field 22 of /proc/PID/stat
}

// Mount names a mount in the container that was attached while it runs.
type Mount struct {
	Target string `json:"target"`           // as it was asked for
	ID     uint64 `json:"id"`               // STATX_MNT_ID: may be given again
	Unique uint64 `json:"unique,omitempty"` // STATX_MNT_ID_UNIQUE; 0 where the kernel has none
}

// Thing is something on the machine that an owner made for the container and can undo.
type Thing struct {
	Owner   string          `json:"owner"`
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

// Step is an operation that a created container still has to perform: what a failure record with its address means.
type Step struct {
	Address uint64 `json:"address"`
	Step    string `json:"step"`
	Object  string `json:"object,omitempty"`
	Syscall string `json:"syscall,omitempty"`
	Call    string `json:"call,omitempty"`
}

// Filter is what a seccomp profile was compiled to, for further processes.
type Filter struct {
	Profile uint64 `json:"profile"` // a sum of the profile's text (FNV-1a): a filter of another text is not used
	Flags   uint64 `json:"flags,omitempty"`
	Code    string `json:"code"` // struct sock_filter, in base64
}

// Result is how a command ended and what it used. Figures that are not known are absent.
type Result struct {
	ExitCode int       `json:"exitCode"`
	Signal   int       `json:"signal,omitempty"`
	Core     bool      `json:"core,omitempty"`
	Reason   string    `json:"reason"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`

	OOMKills   *uint64 `json:"oomKills,omitempty"`
	CPU        *int64  `json:"cpuNanoseconds,omitempty"`
	PeakMemory *uint64 `json:"peakMemory,omitempty"`
	PeakPids   *uint64 `json:"peakPids,omitempty"`
	ReadBytes  *uint64 `json:"readBytes,omitempty"`
	WriteBytes *uint64 `json:"writeBytes,omitempty"`
	DiskUsed   *uint64 `json:"diskUsed,omitempty"`
	LogLost    uint64  `json:"logLost,omitempty"`
}

// ValidID reports whether a container can be called so: 1 to 128 letters, digits, '_', '.', '+' or '-', of which the first is a letter or
// digit. The name is also that of its directory.
func ValidID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'; !alnum && (i == 0 || strings.IndexByte("_.+-", c) < 0) {
			return false
		}
	}
	return 1 <= len(id) && len(id) <= 128
}

// Parse reads a record. id is the name of the directory in which it stood.
func Parse(id string, b []byte) (*Record, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrCorrupt, maxRecord)
	}
	r := &Record{}
	err := codec.Unmarshal(b, r)
	if err != nil || r.Version != Version && r.Version != versionMonitored {
		return nil, unreadable(b, err)
	}
	if err := r.check(id); err != nil {
		return nil, err
	}
	return r, nil
}

// copy returns a record that is changed without changing r. They share raw JSON and steps, which nobody changes.
func (r *Record) copy() *Record {
	c := *r
	c.Labels, c.CgroupFrom, c.Cgroup = maps.Clone(r.Labels), maps.Clone(r.CgroupFrom), maps.Clone(r.Cgroup)
	c.Command, c.Things, c.Mounts = slices.Clone(r.Command), slices.Clone(r.Things), slices.Clone(r.Mounts)
	if r.Result != nil {
		res := *r.Result
		c.Result = &res
	}
	return &c
}

// unreadable says why a record cannot be understood: in one of another version everything else may have another form.
func unreadable(b []byte, why error) error {
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if v.Version != Version && v.Version != versionMonitored {
		return fmt.Errorf("%w: %d; this release knows %d and %d", ErrVersion, v.Version, Version, versionMonitored)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, why)
}

func (r *Record) check(id string) error {
	bad := func(what string, v any) error { return fmt.Errorf("%w: %s %v", ErrCorrupt, what, v) }
	switch {
	case r.ID != id || !ValidID(id):
		return bad("id", fmt.Sprintf("%q in directory %q", r.ID, id))
	case r.BootID == "" || strings.ContainsAny(r.BootID, "\n\x00"):
		return bad("boot id", fmt.Sprintf("%q", r.BootID))
	case r.Phase != Creating && r.Phase != Created && r.Phase != Running && r.Phase != Stopped && r.Phase != Restarting:
		return bad("phase", fmt.Sprintf("%q", r.Phase))
	case r.Init.PID < 0 || r.Keeper.PID < 0 || (r.Phase == Created || r.Phase == Running) && (r.Init.PID == 0 || r.Init.Start == 0):
		return bad("process ids", fmt.Sprint(r.Init.PID, " ", r.Keeper.PID))
	case (r.Phase == Stopped || r.Phase == Restarting) && r.Result == nil:
		return bad("result", "missing")
	case r.Monitor.PID < 0 || r.Run < 0 || r.Restarts < 0 || r.Monitor.PID != 0 && (r.Run == 0 || r.Monitor.Start == 0) || r.Monitor.PID == 0 && r.Phase == Restarting:
		return bad("monitor", fmt.Sprint(r.Monitor.PID, ", run ", r.Run))
	case r.StopSignal < 0 || r.StopSignal > 64:
		return bad("stop signal", r.StopSignal)
	}
	for h, dir := range r.Cgroup {
		if !strings.HasPrefix(dir, "/") || strings.ContainsRune(dir, 0) {
			return bad("cgroup directory of "+h, fmt.Sprintf("%q", dir))
		}
	}
	for _, t := range r.Things {
		if t.Owner == "" || t.Version < 0 {
			return bad("thing of owner", fmt.Sprintf("%q, version %d", t.Owner, t.Version))
		}
	}
	return nil
}

// lasts reports whether something is to be done about the container after the machine was started again.
func (r *Record) lasts() bool {
	return r.Phase == Stopped || r.Monitor.PID != 0 || len(r.Things) > 0 || len(r.Hooks) > 0
}

// Format writes a record, so that people can read it too.
func (r *Record) Format() ([]byte, error) {
	if r.Version = Version; r.Monitor.PID != 0 {
		r.Version = versionMonitored
	}
	return codec.MarshalLines(r)
}
