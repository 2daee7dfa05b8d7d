package caisson

import (
	"fmt"

	"github.com/caisson-go/caisson/internal/logs"
)

// openOutputs opens what gets a copy of the output.
func (r *running) openOutputs() error {
	s := r.spec
	if r.m.inside || r.m.rest || !s.copied() && !s.process.terminal {
		return nil
	}
	r.outs = &outputs{}
	if s.attachable || s.process.terminal {
		h := newAttachHub(s.process.terminal)
		h.size = r.resize
		r.outs.hub = h
		r.undo.add(func() error { h.end(); return nil })
	}
	if s.log == nil {
		return nil
	}
	w, err := logs.Open(s.log.filled(), r.logLost)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	r.outs.log = w
	r.undo.add(w.Close)
	return nil
}

// logLost tells that entries could not be written.
func (r *running) logLost(err error) {
	r.warn("log", err)
	r.owner.emit(Event{Kind: EventLogLost, Detail: err.Error()})
}

// endOutputs completes the log of a command that has ended, and tells those who are attached.
func (r *running) endOutputs(res *Result) {
	if r.outs == nil {
		return
	}
	if r.outs.hub != nil {
		r.outs.hub.end()
	}
	if r.outs.log == nil {
		return
	}
	if err := r.outs.log.Close(); err != nil {
		r.logLost(err)
	}
	res.LogLost = r.outs.log.Lost()
}
