package caisson

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/caisson-go/caisson/internal/travel"
	"github.com/caisson-go/caisson/rootfs"
)

// Monitor names a program that supervises a detached container: one that calls [MonitorMain], in its main function or in a
// subcommand of its own.
type Monitor struct {
	// Path is the program, a clean absolute path, such as what [os.Executable] returns.
	Path string
	// Args are its arguments, without the program's name.
	Args []string
	// Env is its environment, as "KEY=value". Nil: that of the program that starts it.
	Env []string
}

// WithMonitor has a detached container ([WithDetached]) started and supervised by another program, which lives as long as the
// container and no longer: one process for each. So a detached container can have what needs a program that lives: a terminal,
// [WithAttachable], [WithLog], [WithRestart], [WithHealthCheck], [WithTimeout], [WithCPUTime] and [WithOutputLimit]. Any program of
// the same user finds it by [Load], waits for it, stops it, attaches to it and reads its log.
//
// All options are handed to the monitor as data, by a file in memory, not by arguments. What is no data is refused by name: readers,
// writers and files, functions, contexts, networks, loggers, pools, file systems ([WithFS]), and sources of root filesystems other than
// those of package rootfs that name paths. The monitor's program can add such options itself: see MonitorMain. It must be of the
// same release of this library. [Container.Create] is refused.
//
// [Container.Stop] ends the restart policy, and so do signals that end it in the host program, from whatever program they come.
// When the monitor is killed the container is killed with it; how it ended is known, and [Recover] removes what is left.
// [StateDir.Revive] starts again what is to run, after a reboot or when a monitor was killed: with [RestartAlways] always, with
// [RestartUnlessStopped] and [RestartOnFailure] unless somebody stopped it. A container found by Load that has stopped can be
// started again.
//
// A start whose context ends is undone. One case is left: the monitor has started the command, which has ended already, and does not tell how before
// the context ends, since it is stopped, say. Start fails with the context's error then, and the container stays: Load finds it, and Remove removes it.
func WithMonitor(m Monitor) Option {
	m.Args, m.Env = slices.Clone(m.Args), slices.Clone(m.Env)
	return option(func(s *spec) { s.detach.monitor = &m })
}

// MonitorMain is the main function of a monitor's program; it does not return. Options are added to those of the container, and
// are the program's own: a network, hooks, a logger. It serves the container that it is handed, and ends with it. SIGTERM has it
// stop the container first, which [StateDir.Revive] then starts again.
//
//	func main() {
//		if len(os.Args) == 2 && os.Args[1] == "monitor" {
//			caisson.MonitorMain()
//		}
//		…
//	}
func MonitorMain(opts ...Option) { monitorMain(opts) }

// wishTypes are what interfaces of a spec may hold when it is handed to a monitor.
var wishTypes = travel.Types{
	"rootfs.Dir": reflect.TypeFor[rootfs.DirSource](), "rootfs.Overlay": reflect.TypeFor[rootfs.OverlaySource](),
	"rootfs.Host": reflect.TypeFor[rootfs.HostSource](),
}

// wishVersion is the version of the form in which wishes are kept.
const wishVersion = 1

// wish is what a monitor is handed.
type wish struct {
	Version int
	Monitor Monitor
	Spec    spec
}

// formatWish writes what a monitor is handed. What cannot be is refused by the names of the options.
func formatWish(s *spec) ([]byte, error) {
	w := &wish{Version: wishVersion, Monitor: *s.detach.monitor, Spec: *s}
	w.Spec.detach.monitor, w.Spec.detach.sup, w.Spec.detach.loaded = nil, nil, false
	b, err := travel.Marshal(w, wishTypes)
	if err == nil {
		return b, nil
	}
	var faults []error
	seen := map[string]bool{}
	for _, e := range unjoin(err) {
		var te *travel.Error
		if !errors.As(e, &te) {
			return nil, err
		}
		if name := optionOf(te.Path[1:]); !seen[name] {
			seen[name] = true
			faults = append(faults, invalid(name, "%s cannot be handed to the monitor (WithMonitor): it is no data; the monitor's program can give such options to MonitorMain", te.Type))
		}
	}
	return nil, errors.Join(faults...)
}

func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

// optionOf names the option that sets a field.
func optionOf(path []string) string {
	p := strings.Join(path, ".") + "."
	for _, o := range [][2]string{
		{"process.stdin.", "WithStdin"}, {"process.stdout.", "WithStdout"}, {"process.stderr.", "WithStderr"}, {"process.ctx.", "WithContext"},
		{"process.cancel.", "WithCancel"}, {"process.extraFiles.", "WithExtraFiles"}, {"process.commandFile.", "WithCommandFile"},
		{"process.notify.recorder.", "WithSeccompRecorder"}, {"process.notify.", "WithSeccompNotify"}, {"logger.", "WithLogger"}, {"trace.", "WithTrace"},
		{"network.", "WithNetwork"}, {"hooks.", "WithHook"}, {"trees.", "WithFS"}, {"files.", "WithFiles"}, {"mounts.", "WithMount"},
		{"devices.", "WithDevice"}, {"namespaces.", "WithNamespaces"}, {"rootfs.", "WithRootfs"}, {"devPool.", "WithDevPool"}, {"idmaps.", "WithIDMaps"},
	} {
		if strings.HasPrefix(p, o[0]) {
			return o[1]
		}
	}
	return strings.TrimSuffix(p, ".")
}

// parseWish reads what formatWish wrote.
func parseWish(b []byte) (*wish, error) {
	w := &wish{}
	if err := travel.Unmarshal(b, w, wishTypes); err != nil {
		return nil, fmt.Errorf("%w: wishes for a monitor: %w", ErrCorruptState, err)
	}
	if w.Version != wishVersion {
		return nil, fmt.Errorf("%w: %d of the wishes for a monitor; this release knows %d", ErrStateVersion, w.Version, wishVersion)
	}
	return w, nil
}

// validateMonitor finds what is wrong with the monitor, and what cannot be handed to it.
func (s *spec) validateMonitor() (faults []error) {
	const name = "WithMonitor"
	m := s.detach.monitor
	if m == nil || s.detach.sup != nil {
		return nil
	}
	if !s.detach.on {
		faults = append(faults, invalid(name, "a monitor is for detached containers: add WithDetached(true)"))
	}
	if !filepath.IsAbs(m.Path) || filepath.Clean(m.Path) != m.Path {
		faults = append(faults, invalid(name, "%q is not a clean absolute path", m.Path))
	}
	for _, a := range slices.Concat([]string{m.Path}, m.Args, m.Env) {
		if strings.ContainsRune(a, 0) {
			faults = append(faults, invalid(name, "%q contains a NUL byte", a))
		}
	}
	for _, e := range m.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			faults = append(faults, invalid(name, "%q is not of the form KEY=value", e))
		}
	}
	if s.pod.of != nil {
		return append(faults, invalid("WithNamespacesOf", "the other container cannot be handed to the monitor (WithMonitor); join its namespaces by their paths"))
	}
	if _, err := formatWish(s); err != nil {
		faults = append(faults, err)
	}
	return faults
}
