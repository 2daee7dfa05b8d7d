package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/namespaces"
)

// spaces tells for each kind of namespace whether this user can make one, directly or within a new user namespace.
func spaces(ctx context.Context) (l []Finding) {
	for _, p := range namespaces.Probe(ctx) {
		f := Finding{Area: "namespaces", Name: p.Kind.String(), State: OK, Detail: "directly"}
		switch {
		case p.Direct.Answer == namespaces.Yes:
		case p.InUser.Answer == namespaces.Yes:
			f.Detail = "in a user namespace"
		default:
			f.State, f.Detail, f.Remedy = Missing, fmt.Sprint(p.InUser.Err), p.InUser.Remedy
		}
		l = append(l, f)
	}
	return l
}

// userIDs tells how many ids a container can have.
func userIDs() Finding {
	f := Finding{Area: "user ids", Name: "ids in a container", State: OK}
	maps, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	switch {
	case err != nil:
		f.State, f.Detail = Missing, err.Error()
	case maps.Shortfall != nil:
		f.State, f.Detail = Limited, "only root, who is you: "+maps.Shortfall.Error()
		var e *namespaces.Error
		if errors.As(maps.Shortfall, &e) {
			f.Detail, f.Remedy = fmt.Sprintf("only root, who is you: %v", e.Err), e.Remedy
		}
	default:
		f.Detail = maps.IDMaps.String()
	}
	return f
}

// groups tells which limits can be set, and where.
func groups() (l []Finding) {
	m, err := cgroups.Default()
	if err != nil {
		return []Finding{{"control groups", "layout", Limited, err.Error(), ""}}
	}
	layout := Finding{"control groups", "layout", OK, m.Mode().String(), ""}
	if m.Mode() == cgroups.ModeNone {
		layout.State, layout.Remedy = Limited, "mount cgroup2 on /sys/fs/cgroup"
	}
	l = append(l, layout)
	for _, a := range m.Check() {
		f := Finding{"control groups", a.Controller.String(), OK, "groups are made in " + a.Parent, ""}
		if !a.Usable {
			f.State, f.Detail, f.Remedy = Limited, a.Reason, a.Remedy
		}
		l = append(l, f)
	}
	return l
}

// container starts one with the defaults, and tells which of them did not hold.
func container(ctx context.Context) (l []Finding) {
	verdict := Finding{Area: "container", Name: "start"}
	c, err := caisson.New(caisson.WithCommand("true"))
	if err == nil {
		defer c.Close()
		begin := time.Now()
		err = c.Run(ctx)
		verdict.Detail = fmt.Sprintf("works, from start to end in %v", time.Since(begin).Round(100*time.Microsecond))
	}
	verdict.State = OK
	if err != nil {
		verdict.State, verdict.Detail = Missing, err.Error()
		var e *caisson.Error
		if errors.As(err, &e) {
			verdict.Detail, verdict.Remedy = e.Err.Error(), e.Remedy
		}
		return []Finding{verdict}
	}
	for _, m := range c.Isolation().Missing() {
		l = append(l, Finding{"container", m.Name, Limited, m.Reason, m.Remedy})
	}
	return append(l, verdict)
}
