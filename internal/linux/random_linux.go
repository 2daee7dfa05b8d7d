package linux

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RandomText returns 32 hexadecimal digits that nobody can guess (getrandom(2)), for names. Package crypto/rand would give them too, but add
// other cryptography to every program.
func RandomText() (string, error) {
	var b [16]byte
	if err := Retry(func() error {
		n, err := unix.Getrandom(b[:], 0)
		if err == nil && n < len(b) { // not for so few bytes (getrandom(2))
			err = unix.EIO
		}
		return err
	}); err != nil {
		return "", os.NewSyscallError("getrandom", err)
	}
	return fmt.Sprintf("%x", b), nil
}
