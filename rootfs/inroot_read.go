package rootfs

import (
	"fmt"
	"io"
)

// readLimited reads everything, or fails with [ErrTooLarge] once more than limit bytes have come.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w of %d bytes", ErrTooLarge, limit)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}
