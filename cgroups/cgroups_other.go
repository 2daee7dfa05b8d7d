//go:build !linux

package cgroups

import (
	"context"
	"iter"
)

// Control groups are Linux's. Elsewhere every call answers an [*UnsupportedError], which Is errors.ErrUnsupported;
// translating and judging limits works everywhere.

var errOS = &UnsupportedError{Reason: "control groups exist on Linux only"}

// A Manager knows the layout of control groups on this machine. On this system there is none.
type Manager struct{}

// A Meter reads figures of a group. On this system there is none.
type Meter struct{}

func (*Group) Renew() (*Group, error) { return nil, errOS }
func (*Group) Meter() (*Meter, error) { return nil, errOS }
func (*Meter) Read() (Usage, error)   { return Usage{}, errOS }
func (*Meter) Close() error           { return nil }

// A Group is one control group. On this system there is none.
type Group struct{}

func Default() (*Manager, error)                                              { return nil, errOS }
func NewManager() (*Manager, error)                                           { return nil, errOS }
func New(context.Context, string, Resources, Config) (*Group, error)          { return nil, errOS }
func Open(string) (*Group, error)                                             { return nil, errOS }
func OpenPaths(Paths) (*Group, error)                                         { return nil, errOS }
func (*Manager) Close() error                                                 { return nil }
func (*Manager) TakeBack()                                                    {}
func UndoControllers(context.Context, int, []byte) error                      { return errOS }
func InheritControllers(context.Context, int, []byte) error                   { return errOS }
func (*Manager) Layout() Layout                                               { return Layout{} }
func (*Manager) Vacate(context.Context, string) error                         { return errOS }
func (*Manager) Mode() Mode                                                   { return ModeNone }
func (*Manager) Check() []Availability                                        { return nil }
func (*Manager) Open(string) (*Group, error)                                  { return nil, errOS }
func (*Manager) OpenFrom(map[string]string, string) (*Group, error)           { return nil, errOS }
func (*Manager) OpenPaths(Paths) (*Group, error)                              { return nil, errOS }
func (*Group) Name() string                                                   { return "" }
func (*Group) Controllers() Controllers                                       { return 0 }
func (*Group) Paths() Paths                                                   { return nil }
func (*Group) Close() error                                                   { return nil }
func (*Group) Update(context.Context, Resources) error                        { return errOS }
func (*Group) JoinFDs() (Join, error)                                         { return Join{CloneInto: -1}, errOS }
func (*Group) ProcsFD() (int, error)                                          { return -1, errOS }
func (*Group) Adopt(context.Context, *Group) error                            { return errOS }
func (*Group) AddProc(context.Context, int) error                             { return errOS }
func (*Group) Procs() ([]int, error)                                          { return nil, errOS }
func (*Group) AllProcs() ([]int, error)                                       { return nil, errOS }
func (*Group) Children() ([]string, error)                                    { return nil, errOS }
func (*Group) Child(string) (*Group, error)                                   { return nil, errOS }
func (*Group) Holder() (*Group, error)                                        { return nil, errOS }
func (*Group) Delegate(int, int) error                                        { return errOS }
func (*Group) Freeze(context.Context) error                                   { return errOS }
func (*Group) Thaw(context.Context) error                                     { return errOS }
func (*Group) Frozen() (bool, error)                                          { return false, errOS }
func (*Group) Kill(context.Context) error                                     { return errOS }
func (*Group) Delete(context.Context) error                                   { return errOS }
func (*Group) Unthrottle() (restore func())                                   { return func() {} }
func (*Group) Missing() []string                                              { return nil }
func (*Group) Complete(context.Context) error                                 { return errOS }
func (*Group) OOMKills() (Value[uint64], error)                               { return Value[uint64]{}, errOS }
func (*Group) Final() (Stats, error)                                          { return Stats{}, errOS }
func (*Group) Summary() (Stats, error)                                        { return Stats{}, errOS }
func (*Group) Stats() (Stats, error)                                          { return Stats{}, errOS }
func (*Group) StatsOf(Controllers) (Stats, error)                             { return Stats{}, errOS }
func (*Group) New(context.Context, string, Resources, Config) (*Group, error) { return nil, errOS }
func (*Manager) Places(Resources, Config) ([]Hierarchy, error) {
	return nil, errOS
}
func (*Manager) Attaches(Resources, Config) bool { return false }
func (*Manager) New(context.Context, string, Resources, Config) (*Group, error) {
	return nil, errOS
}
func WatchPressure(context.Context, ...PressureTrigger) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) { yield(Event{}, errOS) }
}
func (*Group) Watch(context.Context, ...PressureTrigger) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) { yield(Event{}, errOS) }
}
