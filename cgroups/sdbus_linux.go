package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/dbus"
)

// sdTime bounds a conversation with systemd, whatever the caller's context says.
const sdTime = 30 * time.Second

const (
	sdName    = "org.freedesktop.systemd1"
	sdPath    = "/org/freedesktop/systemd1"
	sdManager = sdName + ".Manager"
	dbusName  = "org.freedesktop.DBus"
)

// A server is where a systemd may be asked.
type server struct {
	address string
	bus     bool // a message bus; else systemd itself
}

// servers returns the places where the systemd that serves this user may listen, best first.
func servers() (list []server) {
	if isSystemRoot() {
		address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
		if address == "" {
			address = "unix:path=/run/dbus/system_bus_socket"
		}
		return []server{{address, true}, {"unix:path=/run/systemd/private", false}}
	}
	if address := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); address != "" {
		list = append(list, server{address, true})
	}
	dirs := []string{os.Getenv("XDG_RUNTIME_DIR"), "/run/user/" + strconv.Itoa(os.Geteuid())}
	for _, dir := range dirs {
		if dir != "" && ownDir(dir) {
			list = append(list, server{"unix:path=" + dbus.Escape(dir) + "/bus", true}, server{"unix:path=" + dbus.Escape(dir) + "/systemd/private", false})
		}
	}
	return list
}

// ownDir: what another user may have put there is not asked.
func ownDir(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Uid == uint32(os.Geteuid())
}

// isSystemRoot knows root of the machine from root of a user namespace, whom the system's systemd does not serve.
func isSystemRoot() bool {
	const first = 0xEFFFFFFD // PROC_USER_INIT_INO: the namespace that the kernel begins with
	var st unix.Stat_t
	return os.Geteuid() == 0 && (unix.Stat("/proc/self/ns/user", &st) != nil || st.Ino == first)
}

// sameNamespace says whether this program sees the tree of groups as process 1 does.
func sameNamespace() bool {
	var one, own unix.Stat_t
	return unix.Stat("/proc/1/ns/cgroup", &one) != nil || unix.Stat("/proc/self/ns/cgroup", &own) != nil || one.Ino == own.Ino
}

// systemdRuns says whether systemd manages this machine, as sd_booted(3) does.
func systemdRuns() bool {
	var st unix.Stat_t
	return unix.Lstat("/run/systemd/system", &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// A systemd is a conversation with a service manager.
type systemd struct {
	c      *dbus.Conn
	server server
}

// askSystemd begins a conversation, runs f, and ends it.
func askSystemd(ctx context.Context, list []server, f func(context.Context, *systemd) error) error {
	ctx, cancel := context.WithTimeout(ctx, sdTime)
	defer cancel()
	faults := []error{}
	for _, s := range list {
		sd, err := dialSystemd(ctx, s)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		defer sd.c.Close()
		return f(ctx, sd)
	}
	if len(list) == 0 {
		return errNoBus
	}
	return faults[0] // the best of the addresses; the others are only tried
}

var errNoBus = errors.New("no message bus of this user's: XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS are not set, and /run/user has no directory of theirs")

func dialSystemd(ctx context.Context, s server) (*systemd, error) {
	c, err := dbus.Dial(ctx, s.address)
	if err != nil {
		return nil, err
	}
	sd := &systemd{c, s}
	if s.bus {
		if err = c.Hello(ctx); err == nil { // a session without systemd has a bus too
			err = sd.hasManager(ctx)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return sd, nil
}

func (sd *systemd) hasManager(ctx context.Context) error {
	var e dbus.Encoder
	e.String(sdName)
	_, err := sd.c.Call(ctx, dbus.Message{Destination: dbusName, Path: "/org/freedesktop/DBus", Interface: dbusName,
		Member: "GetNameOwner", Signature: "s"}, e.Bytes())
	return err
}

// call calls a method of an object of systemd's.
func (sd *systemd) call(ctx context.Context, path, iface, member, signature string, body func(*dbus.Encoder)) (*dbus.Decoder, error) {
	var e dbus.Encoder
	if body != nil {
		body(&e)
	}
	m := dbus.Message{Path: path, Interface: iface, Member: member, Signature: signature}
	if sd.server.bus {
		m.Destination = sdName
	}
	reply, err := sd.c.Call(ctx, m, e.Bytes())
	if err != nil {
		return nil, sdFault(err)
	}
	return reply.Body(), nil
}

// sdFault translates systemd's refusals to what errors.Is knows.
func sdFault(err error) error {
	var re *dbus.RemoteError
	if !errors.As(err, &re) {
		return err
	}
	switch re.Name {
	case sdName + ".UnitExists":
		return fmt.Errorf("%w: %w", fs.ErrExist, err)
	case sdName + ".NoSuchUnit":
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case dbusName + ".Error.AccessDenied", dbusName + ".Error.InteractiveAuthorizationRequired":
		return fmt.Errorf("%w: %w", unix.EACCES, err)
	}
	return err
}

// text reads a property that is a string.
func (sd *systemd) text(ctx context.Context, path, iface, name string) (string, error) {
	d, err := sd.call(ctx, path, dbusName+".Properties", "Get", "ss", func(e *dbus.Encoder) {
		e.String(iface)
		e.String(name)
	})
	if err != nil {
		return "", err
	}
	if sig := d.Signature(); sig != "s" && d.Err() == nil {
		return "", dbus.ErrMalformed
	}
	s := d.String()
	return s, d.Err()
}

// job calls a method that begins a job, and waits for the end of the job.
func (sd *systemd) job(ctx context.Context, member, signature string, body func(*dbus.Encoder)) error {
	if sd.server.bus {
		var e dbus.Encoder
		e.String("type='signal',sender='" + sdName + "',interface='" + sdManager + "',member='JobRemoved'")
		if err := sd.c.Tell(ctx, dbus.Message{Destination: dbusName, Path: "/org/freedesktop/DBus", Interface: dbusName,
			Member: "AddMatch", Signature: "s"}, e.Bytes()); err != nil {
			return err
		}
	}
	_, _ = sd.call(ctx, sdPath, sdManager, "Subscribe", "", nil) // refused the second time, which is well
	d, err := sd.call(ctx, sdPath, sdManager, member, signature, body)
	if err != nil {
		return err
	}
	job := d.String()
	if err := d.Err(); err != nil {
		return err
	}
	var result string
	err = sd.c.Signal(ctx, func(m *dbus.Message) bool {
		if m.Interface != sdManager || m.Member != "JobRemoved" || m.Signature != "uoss" {
			return false
		}
		d := m.Body()
		_, path := d.Uint32(), d.String()
		_, result = d.String(), d.String()
		return path == job && d.Err() == nil
	})
	if err == nil && result != "done" {
		err = errors.New("the job ended as " + strconv.Quote(result))
	}
	return err
}

// startScope makes a scope unit.
func (sd *systemd) startScope(ctx context.Context, unit string, props []property) error {
	return sd.job(ctx, "StartTransientUnit", "ssa(sv)a(sa(sv))", func(e *dbus.Encoder) {
		e.String(unit)
		e.String("fail")
		encodeProperties(e, props)
		e.Array(8, func() {})
	})
}

// setProperties changes a unit until it ends.
func (sd *systemd) setProperties(ctx context.Context, unit string, props []property) error {
	_, err := sd.call(ctx, sdPath, sdManager, "SetUnitProperties", "sba(sv)", func(e *dbus.Encoder) {
		e.String(unit)
		e.Bool(true)
		encodeProperties(e, props)
	})
	return err
}

// stop ends a unit, and has its failure, if it counts as one, forgotten. One that is gone is no error.
func (sd *systemd) stop(ctx context.Context, unit string) error {
	err := sd.job(ctx, "StopUnit", "ss", func(e *dbus.Encoder) {
		e.String(unit)
		e.String("replace")
	})
	_, _ = sd.call(ctx, sdPath, sdManager, "ResetFailedUnit", "s", func(e *dbus.Encoder) { e.String(unit) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// attach moves a process into a unit, or a group below it (path begins with a slash).
func (sd *systemd) attach(ctx context.Context, unit, path string, pid int) error {
	_, err := sd.call(ctx, sdPath, sdManager, "AttachProcessesToUnit", "ssau", func(e *dbus.Encoder) {
		e.String(unit)
		e.String(path)
		e.Array(4, func() { e.Uint32(uint32(pid)) })
	})
	return err
}

func encodeProperties(e *dbus.Encoder, props []property) {
	e.Array(8, func() {
		for _, p := range props {
			e.Struct()
			e.String(p.name)
			encodeValue(e, p.value)
		}
	})
}

func encodeValue(e *dbus.Encoder, value any) {
	switch v := value.(type) {
	case string:
		e.Variant("s")
		e.String(v)
	case bool:
		e.Variant("b")
		e.Bool(v)
	case uint64:
		e.Variant("t")
		e.Uint64(v)
	case []uint32:
		e.Variant("au")
		e.Array(4, func() {
			for _, n := range v {
				e.Uint32(n)
			}
		})
	case []byte:
		e.Variant("ay")
		e.Array(1, func() {
			for _, b := range v {
				e.Byte(b)
			}
		})
	case []deviceLimit:
		e.Variant("a(st)")
		e.Array(8, func() {
			for _, d := range v {
				e.Struct()
				e.String(d.device)
				e.Uint64(d.limit)
			}
		})
	case [][2]string:
		e.Variant("a(ss)")
		e.Array(8, func() {
			for _, s := range v {
				e.Struct()
				e.String(s[0])
				e.String(s[1])
			}
		})
	default:
		panic(fmt.Sprintf("cgroups: a property of type %T", value))
	}
}
