package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
)

// store is what programs share about the networks of one host namespace, as files:
//
//	DIR/lock                               held by whoever reads in order to change, and while changing the host
//	DIR/COOKIE/sysctls.json                settings of the host that were changed
//	DIR/COOKIE/networks/NAME/network.json  netState
//	DIR/COOKIE/networks/NAME/ip/ADDR       a lease: the id of the endpoint
//	DIR/COOKIE/networks/NAME/last4, last6  the address given out last
//	DIR/COOKIE/networks/NAME/ep/ID.json    epState
//	DIR/COOKIE/late/INSIDE/ID              an endpoint of a container that ran already: the network; INSIDE is the cookie of its namespace
//	DIR/COOKIE/joined/BASE/ID              keptEndpoint: an endpoint that goes with the run of a container which began with the endpoint BASE
//	DIR/COOKIE/ports/PROTO-PORT/ADDR       a published port: the id of the endpoint; ADDR is "any" for all addresses
//
// Each file is written whole under another name and renamed. The directory is the user's alone, so paths in it can be
// trusted. A boot id in DIR/COOKIE/boot makes what an earlier boot left void.
type store struct {
	base string
	dir  string
	lock *os.File
	turn *turn
}

// openStore opens the state directory and takes the lock. The caller closes it.
func openStore(ctx context.Context, dir string, cookie uint64) (*store, error) {
	f, err := openStateDir(dir)
	if err != nil {
		return nil, &Error{Op: "open state directory", Object: dir, Err: err}
	}
	defer f.Close()
	return openStoreIn(ctx, f, cookie)
}

// reopenStore is openStore for a directory that was made sure of before, and is at base: that it is the user's alone is looked at again, where it lies is not.
func reopenStore(ctx context.Context, base, dir string, cookie uint64) (*store, error) {
	fd, err := openSmall(base, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY)
	if err != nil { // somebody removed it
		return openStore(ctx, dir, cookie)
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if err := journal.CheckOwn(f); err != nil {
		return nil, &Error{Op: "open state directory", Object: base, Err: err}
	}
	s, err := openStoreIn(ctx, f, cookie)
	if errors.Is(err, fs.ErrNotExist) { // just now
		return openStore(ctx, dir, cookie)
	}
	return s, err
}

// openStoreIn takes the lock of an open directory.
func openStoreIn(ctx context.Context, f *os.File, cookie uint64) (s *store, err error) {
	base := f.Name()
	s = &store{base: base, dir: hostDir(base, cookie)}
	if s.turn, err = takeTurn(ctx, base); err == nil {
		if s.lock, err = lockFile(ctx, f, "lock"); err != nil {
			s.turn.end()
		}
	}
	if err != nil {
		return nil, &Error{Op: "lock state directory", Object: base, Err: err}
	}
	if err := s.checkBoot(); err != nil {
		s.close()
		return nil, &Error{Op: "read state directory", Object: s.dir, Err: err}
	}
	return s, nil
}

// openStateDir makes sure of the directory, and opens it.
func openStateDir(dir string) (*os.File, error) {
	if dir == "" {
		return journal.Base("netns", true)
	}
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("%w: the path is not absolute", ErrInvalid)
	}
	return journal.OwnDir(filepath.Dir(dir), filepath.Base(dir), true)
}

// stateDir makes sure of the directory, and returns its path.
func stateDir(dir string) (string, error) {
	f, err := openStateDir(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return f.Name(), nil
}

// lockFile waits for the lock in a directory, until ctx ends: a stopped program may hold it for long.
func lockFile(ctx context.Context, dir *os.File, name string) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := again(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_CREAT|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another program holds it: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (s *store) close() {
	s.lock.Close()
	s.turn.end()
}

func (s *store) checkBoot() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "boot")
	was, err := readFile(file)
	if err == nil && string(was) == string(boot) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(s.dir)
}

// knownBoot is what bootID has read.
var knownBoot atomic.Pointer[[]byte]

// bootID identifies the machine's boot. It is read once; a failure, such as for want of descriptors, is not remembered.
func bootID() ([]byte, error) {
	if b := knownBoot.Load(); b != nil {
		return *b, nil
	}
	b, err := readFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		knownBoot.Store(&b)
	}
	return b, err
}

// begun says that there is the directory of a host namespace. It is made before anything else, and removed last.
func (s *store) begun() bool {
	_, err := os.Lstat(s.dir)
	return !errors.Is(err, fs.ErrNotExist)
}

// begin makes the directory of a host namespace.
func (s *store) begin() error {
	if _, err := os.Stat(filepath.Join(s.dir, "boot")); err == nil {
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(s.dir, "boot"), boot)
}

// unfinished is the name under which a file is written.
const unfinished = ".new"

func writeFile(path string, data []byte) error {
	tmp := filepath.Join(filepath.Dir(path), unfinished)
	if err := writeWhole(tmp, data); err != nil {
		return err
	}
	return rename(tmp, path)
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, b)
}

// readJSON reports whether the file is there.
func readJSON(path string, v any) (bool, error) {
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return true, &Error{Op: "read state", Object: path, Err: err}
	}
	return true, nil
}

func (s *store) netDir(name string) string { return filepath.Join(s.dir, "networks", name) }

// network reads a network; nil if there is none.
func (s *store) network(name string) (*netState, error) {
	var n netState
	ok, err := readJSON(filepath.Join(s.netDir(name), "network.json"), &n)
	if !ok || err != nil {
		return nil, err
	}
	return &n, nil
}

// networks reads all of them.
func (s *store) networks() ([]*netState, error) {
	l, err := names(filepath.Join(s.dir, "networks"))
	if err != nil {
		return nil, err
	}
	var out []*netState
	for _, name := range l {
		n, err := s.network(name)
		if err != nil {
			return nil, err
		}
		if n != nil {
			out = append(out, n)
		}
	}
	return out, nil
}

// names lists a directory; none if it is not there. What cannot be read is an error: what is in use would be taken for unused.
func names(dir string) ([]string, error) {
	fail := func(err error) ([]string, error) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, &Error{Op: "list directory", Object: dir, Err: err}
	}
	d, err := os.Open(dir)
	if err != nil {
		return fail(err)
	}
	defer d.Close()
	l, err := d.Readdirnames(-1)
	if err != nil {
		return fail(err)
	}
	// What begins with a dot is a file that a killed program was writing.
	return slices.DeleteFunc(l, func(s string) bool { return s[0] == '.' }), nil
}

func (s *store) saveNetwork(n *netState) error {
	dir := s.netDir(n.Name)
	for _, sub := range []string{"ip", "ep"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, "network.json"), n)
}

func (s *store) dropNetwork(name string) error { return os.RemoveAll(s.netDir(name)) }

// dropAll removes the directory of a host namespace, when nothing is left in it.
func (s *store) dropAll() error { return os.RemoveAll(s.dir) }

// endpoint reads an endpoint; nil if there is none.
func (s *store) endpoint(ref endpointRef) (*epState, error) {
	return readEndpoint(filepath.Join(s.netDir(ref.Network), "ep", ref.ID+".json"))
}

func readEndpoint(path string) (*epState, error) {
	var e epState
	ok, err := readJSON(path, &e)
	if !ok || err != nil {
		return nil, err
	}
	return &e, nil
}

func (s *store) endpoints(network string) ([]*epState, error) {
	dir := filepath.Join(s.netDir(network), "ep")
	l, err := names(dir)
	if err != nil {
		return nil, err
	}
	var out []*epState
	for _, name := range l {
		if filepath.Ext(name) != ".json" {
			continue
		}
		e, err := readEndpoint(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if e != nil {
			out = append(out, e)
		}
	}
	return out, nil
}

// eachEndpoint calls f with each endpoint of each network, until the first error.
func (s *store) eachEndpoint(f func(*netState, *epState) error) error {
	nets, err := s.networks()
	if err != nil {
		return err
	}
	for _, n := range nets {
		l, err := s.endpoints(n.Name)
		if err != nil {
			return err
		}
		for _, e := range l {
			if err := f(n, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// isEmpty reports whether a network has no endpoint. What cannot be read is an error: a network in use would be taken for one that is not.
func (s *store) isEmpty(network string) (bool, error) {
	d, err := os.Open(filepath.Join(s.netDir(network), "ep"))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, &Error{Op: "list endpoints", Object: "network " + network, Err: err}
	}
	defer d.Close()
	for { // most often the first one is enough
		l, err := d.Readdirnames(8)
		if slices.ContainsFunc(l, func(n string) bool { return filepath.Ext(n) == ".json" }) {
			return false, nil
		}
		if err == io.EOF || errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		if err != nil {
			return false, &Error{Op: "list endpoints", Object: "network " + network, Err: err}
		}
	}
}

func (s *store) saveEndpoint(e *epState) error {
	return writeJSON(filepath.Join(s.netDir(e.Network), "ep", e.ID+".json"), e)
}

// lease takes an address; false if somebody has it.
func (s *store) lease(network, id string, a netip.Addr) (bool, error) {
	return take(filepath.Join(s.netDir(network), "ip", a.String()), id)
}

// leaseAgain is lease; what the same endpoint has already is left of who connected it in a run before, and was killed.
func (s *store) leaseAgain(network, id string, a netip.Addr) (bool, error) {
	ok, err := s.lease(network, id, a)
	if ok || err != nil {
		return ok, err
	}
	b, err := readFile(filepath.Join(s.netDir(network), "ip", a.String()))
	return string(b) == id, err
}

// take makes a file that says to whom it belongs. It is written before it has its name, so that a killed program leaves none
// without an owner.
func take(path, id string) (bool, error) {
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, writeFile(path, []byte(id))
}

// giveBack removes a file of that owner's.
func giveBack(path, id string) error {
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(b) != id {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// release gives back all that an endpoint holds, its own file last.
func (s *store) release(ref endpointRef) error {
	var faults []error
	ips := filepath.Join(s.netDir(ref.Network), "ip")
	e, err := s.endpoint(ref)
	if err != nil {
		return err
	}
	if e == nil { // killed before it was written: the leases are found by their owner
		leases, lerr := names(ips)
		for _, a := range leases {
			faults = append(faults, giveBack(filepath.Join(ips, a), ref.ID))
		}
		ports, perr := names(filepath.Join(s.dir, "ports"))
		faults = append(faults, lerr, perr, s.releasePorts(ref.ID, ports))
		return errors.Join(faults...)
	}
	for _, p := range e.Addresses {
		faults = append(faults, giveBack(filepath.Join(ips, p.Addr().String()), ref.ID))
	}
	var ports []string
	for _, p := range e.Ports {
		ports = append(ports, portKey(p))
	}
	faults = append(faults, s.releasePorts(ref.ID, ports), s.forgetLate(e))
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return os.Remove(filepath.Join(s.netDir(ref.Network), "ep", ref.ID+".json"))
}

// takePort records a published port; who has it already is returned otherwise.
func (s *store) takePort(p Port, id string) (other string, err error) {
	dir := filepath.Join(s.dir, "ports", portKey(p))
	l, err := names(dir)
	if err != nil {
		return "", err
	}
	for _, a := range l {
		if clash(a, portAddr(p)) {
			b, err := os.ReadFile(filepath.Join(dir, a))
			return string(b), err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return "", writeFile(filepath.Join(dir, portAddr(p)), []byte(id))
}

func (s *store) releasePorts(id string, keys []string) error {
	var faults []error
	for _, key := range keys {
		dir := filepath.Join(s.dir, "ports", key)
		l, err := names(dir)
		faults = append(faults, err)
		for _, a := range l {
			faults = append(faults, giveBack(filepath.Join(dir, a), id))
		}
		_ = os.Remove(filepath.Join(dir, unfinished))
		_ = os.Remove(dir) // if it is empty
	}
	return errors.Join(faults...)
}

func (s *store) sysctls() (l []sysctlState, err error) {
	_, err = readJSON(filepath.Join(s.dir, "sysctls.json"), &l)
	return l, err
}

func (s *store) saveSysctls(l []sysctlState) error {
	return writeJSON(filepath.Join(s.dir, "sysctls.json"), l)
}

// lastLease is the address of a family that was given out last.
func (s *store) lastLease(network string, is4 bool) netip.Addr {
	b, _ := readFile(s.lastFile(network, is4))
	a, _ := netip.ParseAddr(string(b))
	return a
}

func (s *store) saveLastLease(network string, a netip.Addr) error {
	return writeFile(s.lastFile(network, a.Is4()), []byte(a.String()))
}

func (s *store) lastFile(network string, is4 bool) string {
	return filepath.Join(s.netDir(network), map[bool]string{true: "last4", false: "last6"}[is4])
}
