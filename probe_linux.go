package caisson

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/caps"
	"github.com/caisson-go/caisson/internal/linux"
	"github.com/caisson-go/caisson/internal/seccomp"
	"github.com/caisson-go/caisson/internal/stage"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

func probe(ctx context.Context) []Ability {
	var out []Ability
	for _, f := range []func(context.Context) []Ability{probeSystem, probeNamespaces, probeIDs, probeCgroups, probeRootfs, probeSecurity, probeEngine} {
		out = append(out, f(ctx)...)
	}
	return out
}

// yesNo makes an ability from an error.
func yesNo(area, name, detail string, err error) Ability {
	a := Ability{Area: area, Name: name, Answer: Yes, Detail: detail}
	if err != nil {
		a.Answer, a.Detail, a.Reason, a.Remedy = No, "", err.Error(), remedy(err)
	}
	return a
}

func probeSystem(context.Context) []Ability {
	const area = "system"
	rel, err := linux.KernelRelease()
	k := yesNo(area, "kernel", rel.String()+" "+runtime.GOARCH, err)
	if err == nil && !rel.AtLeast(5, 14) {
		k.Answer, k.Reason, k.Remedy = No, "older than 5.14, the least version that is supported", "a newer kernel"
	}
	who := Ability{Area: area, Name: "privileged", Answer: Yes, Detail: fmt.Sprintf("uid %d, CAP_SYS_ADMIN", os.Geteuid())}
	if !privileged() {
		who.Answer, who.Detail = No, ""
		who.Reason = fmt.Sprintf("uid %d without CAP_SYS_ADMIN: containers are made in user namespaces", os.Geteuid())
	}
	return []Ability{k, who}
}

func probeNamespaces(ctx context.Context) []Ability {
	var out []Ability
	priv := privileged()
	for _, p := range namespaces.Probe(ctx) {
		v := p.InUser
		if priv || p.Kind == namespaces.User {
			v = p.Direct
		}
		a := Ability{Area: "namespaces", Name: p.Kind.String(), Detail: "since Linux " + p.Kind.Since(), Remedy: v.Remedy}
		switch v.Answer {
		case namespaces.Yes:
			a.Answer, a.Remedy = Yes, ""
		case namespaces.No:
			a.Answer, a.Detail = No, ""
		}
		if v.Err != nil && a.Answer != Yes {
			a.Reason = v.Err.Error()
		}
		out = append(out, a)
	}
	return out
}

func probeIDs(context.Context) []Ability {
	auto, err := namespaces.AutoIDMaps(namespaces.RootIsCaller)
	if err == nil && auto.Shortfall != nil {
		err = auto.Shortfall
	}
	return []Ability{yesNo("namespaces", "several user ids", describeMaps(auto.IDMaps), err)}
}

func probeCgroups(context.Context) []Ability {
	const area = "cgroups"
	m, err := cgroups.Default()
	if err != nil {
		return []Ability{yesNo(area, "mounted", "", err)}
	}
	out := []Ability{{Area: area, Name: "layout", Answer: Yes, Detail: m.Mode().String()}}
	for _, c := range m.Check() {
		a := Ability{Area: area, Name: c.Controller.String() + " controller", Answer: Yes, Detail: c.Parent}
		if !c.Usable {
			a.Answer, a.Detail, a.Reason, a.Remedy = No, "", c.Reason, c.Remedy
		}
		out = append(out, a)
	}
	return out
}

func probeRootfs(context.Context) []Ability {
	const area = "root filesystem"
	b, err := os.ReadFile("/proc/filesystems")
	over := yesNo(area, "overlay", "", err)
	if err == nil && !strings.Contains(string(b), "overlay") {
		over = Ability{Area: area, Name: "overlay", Answer: Unknown, Reason: "not listed in /proc/filesystems", Remedy: "modprobe overlay, if it is a module"}
	}
	f := rootfs.Probe()
	return []Ability{over, have(area, "openat2", f.Openat2, "Linux 5.6"), have(area, "mount_setattr", f.MountSetattr, "Linux 5.12")}
}

// have is the answer for a system call.
func have(area, name string, ok bool, since string) Ability {
	if ok {
		return Ability{Area: area, Name: name, Answer: Yes, Detail: "since " + since}
	}
	return Ability{Area: area, Name: name, Answer: No, Reason: "the kernel lacks it or a seccomp filter hides it; an older way is used",
		Remedy: since + ", or a newer profile of the outer container"}
}

func probeSecurity(context.Context) []Ability {
	const area = "security"
	var out []Ability
	_, err := seccomp.Native()
	if err == nil {
		_, err = unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	}
	out = append(out, yesNo(area, "seccomp filters", "", err))
	abi, err := landlockABI()
	out = append(out, yesNo(area, "Landlock", fmt.Sprintf("ABI %d", abi), err))
	for _, m := range []struct {
		name string
		on   bool
	}{{"AppArmor", haveAppArmor()}, {"SELinux", haveSELinux()}} {
		a := Ability{Area: area, Name: m.name, Answer: Yes}
		if !m.on {
			a.Answer, a.Reason, a.Remedy = No, "this kernel runs without it", "needed for labels only: boot with it among the security modules (lsm=…)"
		}
		out = append(out, a)
	}
	bound, err := caps.Bounding()
	a := yesNo(area, "default capabilities", defaultCaps.String(), err)
	if lacking := defaultCaps &^ bound; err == nil && lacking != 0 && privileged() {
		a = Ability{Area: area, Name: a.Name, Answer: No, Reason: "the host program lacks " + lacking.String(), Remedy: "containers go without them, or live in a user namespace"}
	}
	return append(out, a)
}

// probeEngine makes a process as a start does.
func probeEngine(context.Context) []Ability {
	const area = "engine"
	how, err := stage.Probe()
	out := []Ability{yesNo(area, "anonymous executable", how, err)}
	if err != nil {
		return out
	}
	out = append(out, have(area, "clone3", stage.HasClone3(), "Linux 5.3"))
	self, err := linux.PidfdOpen(os.Getpid(), false)
	if err == nil {
		_, err = linux.PidfdInfo(self)
		self.Close()
	}
	a := yesNo(area, "status of reaped processes", "PIDFD_GET_INFO", err)
	if err != nil {
		a.Remedy = "Linux 6.15; without it the host program must not reap all its children"
	}
	return append(out, a)
}
