package rootfs

import (
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/program"
)

// labelOption is the mount option of SELinux that gives every file of a filesystem one label; see mount(8).
const labelOption = "context"

// label is the one that a mount's files get. Message queues are as old as their ipc namespace, which may be another's: they get what is
// asked for them, and nothing else.
func (p *Plan) label(m *Mount) string {
	if m.Label != "" || m.Type == TypeMqueue {
		return m.Label
	}
	return p.env.MountLabel
}

func withLabel(options [][2]string, label string) [][2]string {
	if label == "" {
		return options
	}
	return append(options, [2]string{labelOption, label})
}

// quotedLabel is the option as mount(2) takes it behind others: labels have commas.
func quotedLabel(label string) string {
	if label == "" {
		return ""
	}
	return "," + labelOption + `="` + label + `"`
}

// fsconfigLabel gives it to a part of the root.
func (p *Plan) fsconfigLabel(b *program.Builder, fs program.Arg) {
	if p.env.MountLabel != "" {
		b.FsconfigString(fs, labelOption, p.env.MountLabel)
	}
}

// labelMqueue labels the directory of message queues: its filesystem is as old as the ipc namespace, and takes no option any more. A
// policy may give message queues no labels.
func (p *Plan) labelMqueue(b *program.Builder, m *Mount, dir string) {
	if label := p.label(m); label != "" && m.Type == TypeMqueue {
		b.Setxattr(dir, "security.selinux", label).Ignore(unix.EOPNOTSUPP)
	}
}
