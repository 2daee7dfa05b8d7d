package caisson

import (
	"context"
	"fmt"
)

// attachTo connects with the streams of what runs.
func (r *running) attachTo(ctx context.Context, o AttachOptions) (*Attachment, error) {
	if r.spec.detach.followed() {
		return r.attachFollowed(ctx, o)
	}
	if r.outs == nil || r.outs.hub == nil {
		return nil, fmt.Errorf("%w: its streams are not kept: give it a terminal or WithAttachable", ErrState)
	}
	return r.outs.hub.attach(o)
}
