package caisson

import (
	"fmt"

	"github.com/caisson-go/caisson/internal/logs"
)

// openOutputs opens what gets a copy of the output.
func (r *running) openOutputs() error {
	cfg := r.spec.log
	if cfg == nil || r.m.inside {
		return nil
	}
	w, err := logs.Open(cfg.filled(), r.logLost)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	r.outs = &outputs{log: w}
	r.undo.add(w.Close)
	return nil
}

// logLost tells that entries could not be written.
func (r *running) logLost(err error) {
	r.warn("log", err)
	r.owner.emit(Event{Kind: EventLogLost, Detail: err.Error()})
}

// endOutputs completes the log of a command that has ended.
func (r *running) endOutputs(res *Result) {
	if r.outs == nil || r.outs.log == nil {
		return
	}
	if err := r.outs.log.Close(); err != nil {
		r.logLost(err)
	}
	res.LogLost = r.outs.log.Lost()
}
