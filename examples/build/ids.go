package main

import (
	"fmt"
	"os"

	"github.com/caisson-go/caisson/namespaces"
)

// userIDs are the ids that containers have where an ordinary user builds: root is that user, the others are the user's subordinate ids, if there
// are some. Root builds with the ids of the machine, and needs no maps.
func userIDs(p *progress) (*namespaces.IDMaps, error) {
	if os.Geteuid() == 0 {
		return nil, nil
	}
	auto, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err != nil {
		return nil, err
	}
	if auto.Shortfall != nil {
		p.line("! a RUN has no user but root: %v", auto.Shortfall)
	}
	return &auto.IDMaps, nil
}

// owner turns who owns a file on disk into who does so in the container.
func (b *builder) owner(uid, gid uint32) (uint32, uint32, error) {
	u, uok := namespaces.ToContainer(b.ids.UID, uid)
	g, gok := namespaces.ToContainer(b.ids.GID, gid)
	if !uok || !gok {
		return 0, 0, fmt.Errorf("%d:%d is no owner that a container has", uid, gid)
	}
	return u, g, nil
}
