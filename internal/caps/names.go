package caps

// A Cap is the number of one capability, from 0 (CAP_CHOWN) to the kernel's
// last one (at most 63, the width of a [Set]).
type Cap uint8

// The capabilities, numbered as in include/uapi/linux/capability.h.
const (
	Chown             Cap = iota // CAP_CHOWN
	DACOverride                  // CAP_DAC_OVERRIDE
	DACReadSearch                // CAP_DAC_READ_SEARCH
	Fowner                       // CAP_FOWNER
	Fsetid                       // CAP_FSETID
	Kill                         // CAP_KILL
	Setgid                       // CAP_SETGID
	Setuid                       // CAP_SETUID
	Setpcap                      // CAP_SETPCAP
	LinuxImmutable               // CAP_LINUX_IMMUTABLE
	NetBindService               // CAP_NET_BIND_SERVICE
	NetBroadcast                 // CAP_NET_BROADCAST
	NetAdmin                     // CAP_NET_ADMIN
	NetRaw                       // CAP_NET_RAW
	IPCLock                      // CAP_IPC_LOCK
	IPCOwner                     // CAP_IPC_OWNER
	SysModule                    // CAP_SYS_MODULE
	SysRawio                     // CAP_SYS_RAWIO
	SysChroot                    // CAP_SYS_CHROOT
	SysPtrace                    // CAP_SYS_PTRACE
	SysPacct                     // CAP_SYS_PACCT
	SysAdmin                     // CAP_SYS_ADMIN
	SysBoot                      // CAP_SYS_BOOT
	SysNice                      // CAP_SYS_NICE
	SysResource                  // CAP_SYS_RESOURCE
	SysTime                      // CAP_SYS_TIME
	SysTTYConfig                 // CAP_SYS_TTY_CONFIG
	Mknod                        // CAP_MKNOD
	Lease                        // CAP_LEASE
	AuditWrite                   // CAP_AUDIT_WRITE
	AuditControl                 // CAP_AUDIT_CONTROL
	Setfcap                      // CAP_SETFCAP
	MACOverride                  // CAP_MAC_OVERRIDE
	MACAdmin                     // CAP_MAC_ADMIN
	Syslog                       // CAP_SYSLOG
	WakeAlarm                    // CAP_WAKE_ALARM
	BlockSuspend                 // CAP_BLOCK_SUSPEND
	AuditRead                    // CAP_AUDIT_READ, Linux 3.16
	Perfmon                      // CAP_PERFMON, Linux 5.8
	BPF                          // CAP_BPF, Linux 5.8
	CheckpointRestore            // CAP_CHECKPOINT_RESTORE, Linux 5.9
)

// LastKnown is the newest capability this package has a name for. A newer
// kernel may have more: see [Last].
const LastKnown = CheckpointRestore

// maxCap is the last bit of a Set.
const maxCap Cap = 63

// names holds what stands behind CAP_, at the capability's number.
var names = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
	"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
	"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
	"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
	"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}
