package caisson

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/codec"
	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/namespaces"
)

// groupOwner is the name under which a container's cgroup is recorded.
const groupOwner = "caisson.cgroup"

type groupRecord struct {
	Name string `json:"name"` // as cgroups.Open takes it
	// Own are the groups in which the program was, by hierarchy: a name means a place near them, and who recovers may be elsewhere.
	Own map[string]string `json:"own,omitempty"`
}

// ownGroups are the groups that this program is in.
var ownGroups = sync.OnceValue(func() map[string]string {
	m, err := cgroups.Default()
	if err != nil {
		return nil
	}
	own := map[string]string{}
	for _, h := range m.Layout().Hierarchies {
		own[h.Name] = h.Own
	}
	return own
})

// openFrom opens a group by the name that a program in the given groups gave it.
func openFrom(own map[string]string, name string) (*cgroups.Group, error) {
	m, err := cgroups.Default()
	if err != nil {
		return nil, err
	}
	return m.OpenFrom(own, name)
}

// recordGroup records a cgroup that is about to be made; the returned function strikes it out.
func recordGroup(name, parent string) (func(), error) {
	j, err := journal.Default()
	if err != nil {
		return nil, err
	}
	rec := groupRecord{Name: name}
	if parent != "" {
		rec.Name = path.Join(parent, name)
	} else {
		rec.Own = ownGroups()
	}
	data, err := codec.Marshal(rec)
	if err != nil {
		return nil, err
	}
	id, err := j.Add(groupOwner, 1, data)
	if err != nil {
		return nil, err
	}
	return func() { _ = j.Done(id) }, nil
}

// recordScoped replaces the record of a group that turned out to be in a scope of systemd's: where that is could not be
// known before. Had the program been killed in between, systemd would have removed the empty scope.
func recordScoped(g *cgroups.Group, strike func()) (func(), error) {
	for _, dir := range g.Paths() {
		if at, ok := strings.CutPrefix(path.Dir(dir), "/sys/fs/cgroup"); ok && strings.HasSuffix(at, ".scope") {
			again, err := recordGroup(g.Name(), at)
			if err != nil {
				return strike, err
			}
			strike()
			return again, nil
		}
	}
	return strike, nil
}

// inScope reports whether a group is in a scope of systemd's, or is one, where its name alone may not lead to it.
func inScope(g *cgroups.Group) bool {
	for _, dir := range g.Paths() {
		if strings.Contains(dir+"/", ".scope/") {
			return true
		}
	}
	return false
}

// undoGroup removes a cgroup that a dead program left, with what still runs in it.
func undoGroup(ctx context.Context, version int, data []byte) error {
	var rec groupRecord
	if version != 1 {
		return fmt.Errorf("record of version %d", version)
	}
	if err := codec.Unmarshal(data, &rec); err != nil {
		return err
	}
	g, err := openFrom(rec.Own, rec.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := g.Kill(ctx); err != nil && !goneGroup(err) { // the keeper of its program may remove it too
		g.Close()
		return err
	}
	if err := g.Delete(ctx); err != nil {
		g.Close()
		return err
	}
	return nil
}

// recoverAll undoes what dead programs recorded. What they enabled in groups of others is given to controllers.
func recoverAll(ctx context.Context, owners []Owner, controllers journal.UndoFunc) (int, error) {
	dir, err := journal.Dir()
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	all := map[string]journal.Undoer{
		groupOwner:               journal.UndoFunc(undoGroup),
		resctrlOwner:             journal.UndoFunc(undoResctrlOf),
		namespaces.PinOwner:      journal.UndoFunc(namespaces.UndoPin),
		cgroups.ControllersOwner: controllers,
		cgroups.PoolOwner:        journal.UndoFunc(cgroups.UndoPool),
	}
	for _, o := range owners {
		all[o.Name()] = o
	}
	return journal.Recover(ctx, dir, all)
}

// recoverEverything undoes what dead programs left, and looks after the detached containers.
func recoverEverything(ctx context.Context, owners []Owner) (int, error) {
	n, err := recoverAll(ctx, owners, cgroups.UndoControllers)
	if m, merr := cgroups.Default(); merr == nil {
		m.TakeBack()
	}
	m, derr := StateDir("").recover(ctx, owners)
	return n + m, errors.Join(err, derr)
}

var recovered sync.Once

// recoverFirst tidies up after dead programs, once for this program. A failure is not this start's: what could not be
// undone stays recorded.
func recoverFirst(ctx context.Context) {
	recovered.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, _ = recoverAll(ctx, nil, cgroups.InheritControllers)
	})
}
