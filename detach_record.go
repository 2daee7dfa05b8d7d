package caisson

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/state"
)

// processRecord is what a further process of a loaded container begins with: by default it may do no more than the
// container's command.
type processRecord struct {
	User          string          `json:"user"`
	Env           []string        `json:"env,omitempty"`
	Dir           string          `json:"dir,omitempty"`
	Capabilities  []string        `json:"capabilities,omitempty"`
	Replace       bool            `json:"replaceCapabilities,omitempty"`
	Add           []string        `json:"addCapabilities,omitempty"`
	Drop          []string        `json:"dropCapabilities,omitempty"`
	Sets          *CapabilitySets `json:"capabilitySets,omitempty"`
	Groups        []uint32        `json:"groups,omitzero"`
	AllowNewPrivs bool            `json:"allowNewPrivileges,omitempty"`
	Rlimits       []rlimitRecord  `json:"rlimits,omitempty"`
	Umask         *uint32         `json:"umask,omitempty"`
	OOMScoreAdj   *int            `json:"oomScoreAdj,omitempty"`
	Seccomp       json.RawMessage `json:"seccomp,omitempty"`
	SeccompOff    bool            `json:"seccompOff,omitempty"`
	Landlock      *Landlock       `json:"landlock,omitempty"`
	Nested        bool            `json:"nested,omitempty"`

	Listener         string `json:"listener,omitempty"` // of seccomp notifications
	ListenerMetadata string `json:"listenerMetadata,omitempty"`
}

type rlimitRecord struct {
	Resource int    `json:"resource"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
	Name     string `json:"name,omitempty"`
}

func formatProcess(p *processSpec) (json.RawMessage, error) {
	r := processRecord{
		User: p.user, Env: p.env, Dir: p.dir, Capabilities: p.caps.replace, Replace: p.caps.replace != nil, Add: p.caps.add, Drop: p.caps.drop,
		Sets: p.caps.sets, Groups: p.groups,
		AllowNewPrivs: p.allowNewPrivs, Umask: p.umask, OOMScoreAdj: p.oomScoreAdj, SeccompOff: p.seccompOff, Landlock: p.landlock, Nested: p.nested,
		Listener: p.notify.socket, ListenerMetadata: p.notify.metadata,
	}
	if profile, err := p.profile(); err != nil {
		return nil, err
	} else if profile != nil {
		if r.Seccomp, err = codec.Marshal(profile); err != nil {
			return nil, err
		}
	}
	for _, l := range p.rlimits {
		r.Rlimits = append(r.Rlimits, rlimitRecord{l.resource, l.soft, l.hard, l.name})
	}
	return codec.Marshal(r)
}

// parseProcess reads what formatProcess wrote. It refuses what an option would. filter is what is recorded of the one for its seccomp profile.
func parseProcess(b json.RawMessage, args []string, filter *state.Filter) (processSpec, error) {
	p := processSpec{args: args}
	var r processRecord
	if err := codec.Unmarshal(b, &r); err != nil {
		return p, fmt.Errorf("%w: process: %w", ErrCorruptState, err)
	}
	p.user, p.env, p.dir, p.allowNewPrivs, p.umask, p.oomScoreAdj, p.seccompOff, p.landlock =
		r.User, r.Env, r.Dir, r.AllowNewPrivs, r.Umask, r.OOMScoreAdj, r.SeccompOff, r.Landlock
	p.nested = r.Nested
	if len(r.Seccomp) > 0 && string(r.Seccomp) != "null" {
		p.kept = &keptSeccomp{r.Seccomp, filter}
	}
	p.notify.socket, p.notify.metadata = r.Listener, r.ListenerMetadata
	p.caps, p.groups = capsSpec{add: r.Add, drop: r.Drop, sets: r.Sets}, r.Groups
	if r.Replace {
		p.caps.replace = append([]string{}, r.Capabilities...)
	}
	for _, l := range r.Rlimits {
		p.rlimits = append(p.rlimits, rlimit{resource: l.Resource, soft: l.Soft, hard: l.Hard, name: l.Name})
	}
	if err := p.validate(); err != nil {
		return p, fmt.Errorf("%w: process: %w", ErrCorruptState, err)
	}
	return p, nil
}

// formatResult is the result as it is recorded.
func formatResult(r *Result) *state.Result {
	out := &state.Result{
		ExitCode: r.ExitCode, Signal: int(r.Signal), Core: r.Core, Reason: r.Reason.String(), Started: r.Started, Ended: r.Ended,
		OOMKills: figure(r.OOMKills), PeakMemory: figure(r.PeakMemory), PeakPids: figure(r.PeakPids), ReadBytes: figure(r.ReadBytes),
		WriteBytes: figure(r.WriteBytes), DiskUsed: figure(r.DiskUsed), LogLost: r.LogLost,
	}
	if d, ok := r.CPU.Get(); ok {
		n := int64(d)
		out.CPU = &n
	}
	return out
}

func figure(v cgroups.Value[uint64]) *uint64 {
	if n, ok := v.Get(); ok {
		return &n
	}
	return nil
}

func value(n *uint64) cgroups.Value[uint64] {
	if n == nil {
		return cgroups.Value[uint64]{}
	}
	return cgroups.ValueOf(*n)
}

// parseResult reads what formatResult wrote. A reason that this release does not know is an unknown one.
func parseResult(s *state.Result) (*Result, error) {
	r := &Result{
		ExitCode: s.ExitCode, Signal: syscall.Signal(s.Signal), Core: s.Core, Started: s.Started, Ended: s.Ended, OOMKills: value(s.OOMKills),
		PeakMemory: value(s.PeakMemory), PeakPids: value(s.PeakPids), ReadBytes: value(s.ReadBytes), WriteBytes: value(s.WriteBytes),
		DiskUsed: value(s.DiskUsed), LogLost: s.LogLost,
	}
	if s.CPU != nil {
		r.CPU = cgroups.ValueOf(time.Duration(*s.CPU))
	}
	if !r.Started.IsZero() && !r.Ended.IsZero() {
		r.Wall = r.Ended.Sub(r.Started)
	}
	_ = r.Reason.UnmarshalText([]byte(s.Reason))
	if r.ExitCode < 0 && r.Signal == 0 { // why it ended may be known all the same
		return r, &Error{Op: "wait", Err: ErrStatusUnknown}
	}
	return r, nil
}

// parseIsolation reads the list of measures.
func parseIsolation(b json.RawMessage) (l Isolation, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	if err := codec.Unmarshal(b, &l); err != nil {
		return nil, errors.Join(ErrCorruptState, err)
	}
	return l, nil
}

// UnmarshalText takes what MarshalText returns.
func (s *Status) UnmarshalText(b []byte) error {
	for _, known := range []Status{Applied, Declined, Unavailable} {
		if known.String() == string(b) {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("caisson: unknown status %q", b)
}

// parseLimits reads the limits of a record; older ones have none.
func parseLimits(rec *state.Record) (res cgroups.Resources, ok bool, err error) {
	if len(rec.Limits) == 0 {
		return res, false, nil
	}
	if err = codec.Unmarshal(rec.Limits, &res); err == nil {
		err = res.Validate()
	}
	if err != nil {
		return res, false, fmt.Errorf("%w: limits: %w", ErrCorruptState, err)
	}
	return res, true, nil
}
