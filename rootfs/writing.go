package rootfs

// Writing says when a filesystem writes what has changed: mount(8), "filesystem-independent mount options". A filesystem in memory
// shows it and does nothing else.
type Writing struct {
	Sync     bool // at once, files and directories
	DirSync  bool // at once, directories
	LazyTime bool // times of files only when something else is written, or after a day
}

// withoutEffect are options that mount(8) has and no filesystem that can be mounted here changes its ways for: messages of the
// kernel about mistakes, and numbers of versions, which tmpfs counts anyhow.
var withoutEffect = []string{"silent", "loud", "iversion", "noiversion"}

// writing reads one of the options of Writing. A later one takes back an earlier one.
func (m *Mount) writing(option string) bool {
	switch option {
	case "sync", "async":
		m.Writing.Sync = option == "sync"
	case "dirsync":
		m.Writing.DirSync = true
	case "lazytime", "nolazytime":
		m.Writing.LazyTime = option == "lazytime"
	default:
		return false
	}
	return true
}

// options are those that are set.
func (w Writing) options() (out []string) {
	for _, o := range []struct {
		name string
		on   bool
	}{{"sync", w.Sync}, {"dirsync", w.DirSync}, {"lazytime", w.LazyTime}} {
		if o.on {
			out = append(out, o.name)
		}
	}
	return out
}
