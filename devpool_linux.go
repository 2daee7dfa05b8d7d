package caisson

// takeDevTree takes a /dev that is ready. It is this program's until the stage has it.
func (r *running) takeDevTree() {
	if r.spec.devPool == nil || r.layout == nil || r.env.MountLabel != "" || r.env.UserNamespace || r.spec.restore != nil {
		return
	}
	t := r.spec.devPool.TryGet()
	if t == nil {
		return
	}
	if !t.Fits(r.layout) {
		_ = t.Close()
		return
	}
	r.layout.Dev = t
	r.fds[t.File().Name()] = int(t.File().Fd())
}

// leaveDevTree closes it here, when the stage has it or will not be.
func (r *running) leaveDevTree() {
	if r.layout != nil && r.layout.Dev != nil {
		_ = r.layout.Dev.Close()
		r.layout.Dev = nil
	}
}
