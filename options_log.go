package caisson

import (
	"fmt"
	"slices"
	"time"

	"github.com/caisson-go/caisson/internal/logs"
)

// LogFormat is how a log is written.
type LogFormat int

// Formats. The zero value is LogJSONLines.
const (
	// LogJSONLines: one JSON object per line, {"log":"text\n","stream":"stdout","time":"…"}, as Docker's driver json-file writes
	// them. What is not UTF-8 becomes U+FFFD.
	LogJSONLines LogFormat = iota
	// LogPlain: time, stream, F for a line or P for a part of one, and the text byte for byte, as Kubernetes has them (its
	// container runtime interface).
	LogPlain
)

var logFormatNames = [...]string{"json-lines", "plain"}

// String returns "json-lines" or "plain".
func (f LogFormat) String() string {
	if f < 0 || int(f) >= len(logFormatNames) {
		return fmt.Sprintf("LogFormat(%d)", int(f))
	}
	return logFormatNames[f]
}

// MarshalText returns what String returns.
func (f LogFormat) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText takes what MarshalText returns.
func (f *LogFormat) UnmarshalText(b []byte) error {
	i := slices.Index(logFormatNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("caisson: unknown log format %q", b)
	}
	*f = LogFormat(i)
	return nil
}

// LogConfig says where and how the output of a container is logged.
type LogConfig struct {
	// Path is the file, a clean absolute path. Its directory must exist, and be one in which only the host program's user can
	// make files. Rotated files stand beside it, as Path.1, Path.2 and so on: the numbers grow, the lowest is the oldest.
	Path string `json:"path"`
	// Format is how entries are written. Default: LogJSONLines.
	Format LogFormat `json:"format"`
	// MaxSize is the size that a file does not exceed, in bytes, at least 1024; only an entry that is larger by itself does.
	// Default: 10 MiB.
	MaxSize int64 `json:"maxSize,omitempty"`
	// MaxFiles is how many files there are at most, the current one included, up to 1000. Default: 3. With 1 the file is
	// emptied when it is full.
	MaxFiles int `json:"maxFiles,omitempty"`
}

// WithLog writes standard output and standard error of the command, or what its terminal shows, line by line to files of mode
// 0600 that are rotated by size. Writers given by [WithStdout] and [WithStderr] get the same output, also if they are files:
// all of it is copied then. What is there already is appended to; the files stay when the container is closed. Two containers
// that run at the same time cannot have the same log. Read it with [Container.Logs].
//
// A line is written when it ends. Lines are divided at 16 KiB; the last one, where it has no end, is a part. The time is that of
// the writing.
//
// An entry that cannot be written, because the disk is full, say, is lost: the container goes on. [EventLogLost] tells why,
// and [Result].LogLost how many. That the log cannot be opened is an error of the start.
//
// A detached container needs a monitor for it ([WithMonitor]). Processes of [Container.Exec] are not logged.
func WithLog(cfg LogConfig) Option {
	return option(func(s *spec) { s.log = &cfg })
}

const (
	defaultLogSize  = 10 << 20
	defaultLogFiles = 3
	minLogSize      = 1 << 10
	maxLogFiles     = 1000
)

// validateLog finds what is wrong with the log.
func (s *spec) validateLog() (faults []error) {
	l := s.log
	if l == nil {
		return nil
	}
	const name = "WithLog"
	if !cleanAbs(l.Path) || l.Path == "/" {
		faults = append(faults, invalid(name, "%q is not a clean absolute path", l.Path))
	}
	if l.Format < LogJSONLines || l.Format > LogPlain {
		faults = append(faults, invalid(name, "%v is no format", l.Format))
	}
	if l.MaxSize != 0 && l.MaxSize < minLogSize {
		faults = append(faults, invalid(name, "size %d: at least %d bytes", l.MaxSize, minLogSize))
	}
	if l.MaxFiles < 0 || l.MaxFiles > maxLogFiles {
		faults = append(faults, invalid(name, "%d files: 1 to %d", l.MaxFiles, maxLogFiles))
	}
	return faults
}

// filled is what the writer of the log is told, with the defaults.
func (l LogConfig) filled() logs.Config {
	cfg := logs.Config{Path: l.Path, Format: logs.Format(l.Format), MaxSize: l.MaxSize, MaxFiles: l.MaxFiles}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultLogSize
	}
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = defaultLogFiles
	}
	return cfg
}

// LogStream says where a line of a log comes from. The zero value is invalid.
type LogStream int

// Streams. What a terminal shows is LogStdout.
const (
	LogStdout LogStream = iota + 1
	LogStderr
)

// String returns "stdout" or "stderr".
func (s LogStream) String() string {
	if s != LogStdout && s != LogStderr {
		return fmt.Sprintf("LogStream(%d)", int(s))
	}
	return logs.Stream(s).String()
}

// MarshalText returns what String returns.
func (s LogStream) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogEntry is a line that a container wrote. It comes from the container and is not to be trusted: it may hold control
// characters.
type LogEntry struct {
	Time   time.Time
	Stream LogStream
	// Text is the line without its end.
	Text string
	// Partial says that the line was divided, or had no end: it goes on in the next entry of its stream.
	Partial bool
}

// LogOptions say what of a log is wanted. The zero value: all of it up to now.
type LogOptions struct {
	// Follow waits for more until the container has ended for good.
	Follow bool
	// Tail is how many of the last entries that are wanted are given before those that are followed; 0: all.
	Tail int
	// Since and Until leave out what was written before or after; zero: nothing. Follow ends at Until.
	Since, Until time.Time
	// Streams are those wanted. Default: both.
	Streams []LogStream
}
