package caisson

import "errors"

// noteWarnings tells what stands against the network.
func (r *running) noteWarnings(a NetworkAttachment) {
	w, ok := a.(WarningAttachment)
	if !ok {
		return
	}
	for _, m := range w.Warnings() {
		r.note(Measure{Name: m.Name, Status: Unavailable, Reason: m.Reason, Remedy: m.Remedy})
		text := m.Reason
		if m.Remedy != "" {
			text += "; " + m.Remedy
		}
		r.warn(m.Name, errors.New(text))
	}
}
