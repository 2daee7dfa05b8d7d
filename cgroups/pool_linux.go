package cgroups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caisson-go/caisson/internal/journal"
	"github.com/caisson-go/caisson/internal/linux"
)

// poolRecord says where a group that waits was made.
type poolRecord struct {
	Name string `json:"name"` // as Open takes it
	// Own are the groups in which the program was: a name without path means a place near them.
	Own map[string]string `json:"own,omitempty"`
}

// make makes one group, which is recorded first.
func (p *Pool) make(ctx context.Context) (pooled, error) {
	m, err := Default()
	if err != nil {
		return pooled{}, err
	}
	text, err := linux.RandomText()
	if err != nil {
		return pooled{}, err
	}
	name := p.cfg.Name + "-" + text
	rec := poolRecord{Name: path.Join(p.cfg.Config.Parent, name)}
	if p.cfg.Config.Parent == "" {
		rec.Own = map[string]string{}
		for _, h := range m.layout.Hierarchies {
			rec.Own[h.Name] = h.Own
		}
	}
	strike, err := rec.add()
	if err != nil {
		return pooled{}, err
	}
	g, err := m.New(ctx, name, p.cfg.Resources, p.cfg.Config)
	if err != nil {
		strike()
		return pooled{}, err
	}
	if n := g.unified(); n != nil && p.cfg.Config.Parent == "" && strings.HasSuffix(path.Dir(n.path), ".scope") {
		// In a scope of systemd's, which could not be known before. Had the program ended meanwhile, systemd had removed it.
		again, err := (&poolRecord{Name: strings.TrimPrefix(n.path, strings.TrimSuffix(n.h.Mountpoint, "/"))}).add()
		if err == nil {
			strike()
			strike = again
		}
	}
	return pooled{g, strike}, nil
}

// add writes the record; the returned function strikes it out.
func (r *poolRecord) add() (func(), error) {
	j, err := journal.Default()
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	id, err := j.Add(PoolOwner, 1, data)
	if err != nil {
		return nil, err
	}
	return func() { _ = j.Done(id) }, nil
}

// intact says that the group is still there, in every hierarchy, with nothing in it.
func (w pooled) intact() bool {
	if !w.g.hold() {
		return false
	}
	defer w.g.release()
	b := newBuffer()
	defer b.free()
	for i := range w.g.nodes {
		if w.g.nodes[i].unoccupied(b) != nil { // one that was removed cannot be read
			return false
		}
	}
	return true
}

// remove removes a group that nobody was given. What is in it is not the pool's, and stays; so does the record then.
func (w pooled) remove() error {
	if err := w.g.removeEmpty(context.Background()); err != nil {
		return errors.Join(err, w.g.Close())
	}
	w.strike()
	return nil
}

// removeTime is how long a group may seem to be in use in which nothing is.
const removeTime = time.Second

// removeEmpty deletes the group where neither process nor group is in it.
func (g *Group) removeEmpty(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeTime)
	defer cancel()
	pids, err := g.AllProcs()
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone is removed
		return err
	}
	if len(pids) > 0 {
		return &BusyError{Path: g.Name(), Pids: pids[:min(len(pids), 10)], Err: errors.New("they were put into a group that waited in a pool")}
	}
	if g.hasGroups() {
		return &BusyError{Path: g.Name(), Err: errors.New("groups were made below a group that waited in a pool")}
	}
	return g.Delete(ctx)
}

func (g *Group) hasGroups() bool {
	if !g.hold() {
		return false
	}
	defer g.release()
	for i := range g.nodes {
		if hasChildren(g.nodes[i].fd) {
			return true
		}
	}
	return false
}

// UndoPool removes a group that waited in the [Pool] of a dead program, from what that recorded under [PoolOwner]. It kills nothing: a
// group that somebody has put a process or a group into is a [*BusyError].
func UndoPool(ctx context.Context, version int, data []byte) error {
	r, err := parsePoolRecord(version, data)
	if err != nil {
		return err
	}
	m, err := Default()
	if err != nil {
		return err
	}
	g, err := m.OpenFrom(r.Own, r.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(g.removeEmpty(ctx), g.Close())
}

func parsePoolRecord(version int, data []byte) (*poolRecord, error) {
	if version != 1 {
		return nil, fmt.Errorf("record of version %d", version)
	}
	r := new(poolRecord)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	return r, nil
}

var poolsRecovered sync.Once

// recoverPools removes what waited in pools of dead programs, once for this program. What could not be removed stays recorded.
func recoverPools(ctx context.Context) {
	poolsRecovered.Do(func() {
		dir, err := journal.Dir()
		if err != nil {
			return
		}
		defer dir.Close()
		_, _ = journal.Recover(ctx, dir, map[string]journal.Undoer{PoolOwner: journal.UndoFunc(UndoPool)})
	})
}
