package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountPoint is a line of mountinfo: proc_pid_mountinfo(5).
type mountPoint struct {
	at, kind, shared string
	options, super   []string
}

func (r *report) mounts() (list []mountPoint) {
	for line := range strings.SplitSeq(r.Mounts, "\n") {
		f := strings.Fields(line)
		sep := slices.Index(f, "-")
		if sep < 6 || len(f) < sep+4 {
			continue
		}
		list = append(list, mountPoint{f[4], f[sep+1], strings.Join(f[6:sep], " "), strings.Split(f[5], ","), strings.Split(f[sep+3], ",")})
	}
	return list
}

// at is the uppermost mount at a place.
func (t *trial) at(r *report, place string) mountPoint {
	list := r.mounts()
	slices.Reverse(list)
	i := slices.IndexFunc(list, func(m mountPoint) bool { return m.at == place })
	if i < 0 {
		t.failf("nothing is mounted at %s", place)
	}
	return list[i]
}

func configChecks() []check {
	const v, r = "config: specification version", "config: root"
	version := func(text string) func(t *trial) {
		return func(t *trial) { t.spec.Version = text; t.report() }
	}
	return []check{
		{v, "MUST", "1.0.0 is accepted", version("1.0.0")},
		{v, "MUST", "1.2.0 is accepted", version("1.2.0")},
		{v, "MUST", "1.3.0 is accepted", version("1.3.0")},
		{v, "MUST", "a version that is not SemVer is refused", func(t *trial) { t.spec.Version = "one"; t.refusesConfig() }},
		{v, "MUST", "no version is refused", func(t *trial) { t.spec.Version = ""; t.refusesConfig() }},
		{v, "MUST", "a later major version is refused", func(t *trial) { t.spec.Version = "2.0.0"; t.refusesConfig() }},
		{r, "MUST", "root is required", func(t *trial) { t.spec.Root = nil; t.refusesConfig() }},
		{r, "MUST", "path may be relative to the bundle", func(t *trial) { want(t, "probe", t.report("stat:/probe").Did["stat:/probe"][:4], "file") }},
		{r, "MUST", "path may be absolute", func(t *trial) { t.spec.Root.Path = t.root(); t.report() }},
		{r, "MUST", "path must be a directory that exists", func(t *trial) { t.spec.Root.Path = "none"; t.refusesConfig() }},
		{r, "MUST", "readonly true: nothing can be written", func(t *trial) {
			t.spec.Root.Readonly = true
			want(t, "create", t.report("create:/file").Did["create:/file"], "EROFS")
		}},
		{r, "MUST", "readonly is false if it is not set", func(t *trial) {
			want(t, "create", t.report("create:/file").Did["create:/file"], "ok")
		}},
		{r, "field", "the host's root cannot be reached", func(t *trial) {
			if r := t.report("list:/"); strings.Contains(r.Did["list:/"], "bundle") || !strings.Contains(r.Did["list:/"], "probe") {
				t.failf("/ is %s", r.Did["list:/"])
			}
		}},
		{"config: hostname", "field", "is seen inside", func(t *trial) {
			t.spec.Hostname = "conformance"
			want(t, "hostname", t.report().Hostname, "conformance")
		}},
		{"config: hostname", "field", "that of the host stays", func(t *trial) {
			before, _ := os.Hostname()
			t.spec.Hostname = "conformance"
			t.report()
			after, _ := os.Hostname()
			want(t, "the host's name", after, before)
		}},
		{"config: hostname", "MUST", "without a uts namespace of its own it is refused", func(t *trial) {
			t.spec.Hostname = "conformance"
			t.without(specs.UTSNamespace)
			t.refusesConfig()
		}},
		{"config: domainname", "field", "is seen inside", func(t *trial) {
			t.spec.Domainname = "example.org"
			want(t, "domainname", t.report().Domainname, "example.org")
		}},
		{"config: annotations", "MUST", "values that are not strings are refused", func(t *trial) {
			t.raw(func(m map[string]any) { m["annotations"] = map[string]any{"org.example.key": 1} })
			t.refusesCreate()
		}},
		{"config: annotations", "MUST", "unknown keys are no error", func(t *trial) {
			t.spec.Annotations = map[string]string{"org.opencontainers.unknown": "x", "org.example.unknown": ""}
			t.report()
		}},
		{"config: extensibility", "MUST", "unknown properties are ignored", func(t *trial) {
			t.raw(func(m map[string]any) {
				m["x-unknown"] = map[string]any{"a": 1}
				m["linux"].(map[string]any)["unknown"] = []string{"b"}
				m["process"].(map[string]any)["unknown"] = true
			})
			t.made = append(t.made, t.id)
			t.parse(t.ok("run", "--bundle", t.bundle(), t.id))
		}},
	}
}

func mountChecks() []check {
	const s = "config: mounts"
	tmpfs := func(to string, options ...string) specs.Mount {
		return specs.Mount{Destination: to, Type: "tmpfs", Source: "tmpfs", Options: options}
	}
	ids := []specs.LinuxIDMapping{{HostID: 70000, Size: 1000}}
	return []check{
		{s, "MUST", "they are made in the listed order", func(t *trial) {
			dir := t.tmpfs("first")
			t.bind(dir, "/mnt", "bind")
			t.mounted(tmpfs("/mnt", "size=1m"))
			want(t, "what is on top", t.report("stat:/mnt/file").Did["stat:/mnt/file"], "ENOENT")
		}},
		{s, "MUST", "a mount may be within another", func(t *trial) {
			t.mounted(tmpfs("/mnt", "size=1m"))
			t.mounted(tmpfs("/mnt/a/b", "size=2m"))
			want(t, "type", t.at(t.report(), "/mnt/a/b").kind, "tmpfs")
		}},
		{s, "MUST", "a relative destination is relative to /", func(t *trial) {
			t.mounted(tmpfs("mnt"))
			want(t, "type", t.at(t.report(), "/mnt").kind, "tmpfs")
		}},
		{s, "field", "a destination that does not exist is made", func(t *trial) {
			t.mounted(tmpfs("/mnt/new"))
			want(t, "type", t.at(t.report(), "/mnt/new").kind, "tmpfs")
		}},
		{s, "field", "the source of a bind mount may be relative to the bundle", func(t *trial) {
			t.must(os.Mkdir(t.bundle("data"), 0o755))
			t.bind("data", "/mnt", "bind")
			t.at(t.report(), "/mnt")
		}},
		{s, "field", "the source of a bind mount may be a file", func(t *trial) {
			t.bind(t.tmpfs("first")+"/file", "/etc/file", "bind")
			want(t, "content", t.report("read:/etc/file").Did["read:/etc/file"], "ok content")
		}},
		{s, "field", "options of the file system are handed to it", func(t *trial) {
			t.mounted(tmpfs("/mnt", "size=1m", "mode=0711"))
			r := t.report("stat:/mnt")
			want(t, "mode", r.Did["stat:/mnt"], "dir 0711 0 0")
			if !slices.Contains(t.at(r, "/mnt").super, "size=1024k") {
				t.failf("options are %v", t.at(r, "/mnt").super)
			}
		}},
		{s, "MUST", "an option that nobody knows is an error", func(t *trial) { t.mounted(tmpfs("/mnt", "no-such-option=1")); t.refusesConfig() }},
		{s, "MUST", "a destination cannot lead out of the root by a symbolic link", func(t *trial) {
			t.must(os.Mkdir(t.dir+"/outside", 0o755))
			t.must(os.Symlink(t.dir+"/outside", t.root("way")))
			t.mounted(tmpfs("/way/in"))
			t.write()
			t.oci("run", "--bundle", t.bundle(), t.id)
			t.refuseFile("outside/in")
		}},
		{s, "MUST", "uidMappings without gidMappings is an error", func(t *trial) {
			t.mounted(specs.Mount{Source: t.tmpfs("m"), Destination: "/mnt", Type: "bind", Options: []string{"bind", "idmap"}, UIDMappings: ids})
			t.refusesConfig()
		}},
		{s, "MUST", "gidMappings without uidMappings is an error", func(t *trial) {
			t.mounted(specs.Mount{Source: t.tmpfs("m"), Destination: "/mnt", Type: "bind", Options: []string{"bind", "idmap"}, GIDMappings: ids})
			t.refusesConfig()
		}},
		{s, "SHOULD", "uidMappings and gidMappings change owners, by an id mapped mount", func(t *trial) {
			t.mounted(specs.Mount{Source: t.tmpfs("m"), Destination: "/mnt", Type: "bind", Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids})
			want(t, "file", t.report("stat:/mnt/file").Did["stat:/mnt/file"], "file 0644 70000 70000")
		}},
	}
}

// optionCheck is what a mount option does.
type optionCheck struct {
	level, name string
	options     []string // defaults to the name
	kind        string   // tmpfs, or bind of a shared tmpfs with another one in it
	sub         bool     // the effect is that on the mount within
	want, not   string   // an option that mountinfo shows, or must not show
	super       bool     // of the file system
}

func mountOptions() []optionCheck {
	list := func(level, kind string, rows ...optionCheck) []optionCheck {
		for i := range rows {
			rows[i].level, rows[i].kind = level, kind
			if rows[i].options == nil {
				rows[i].options = []string{rows[i].name}
			}
		}
		return rows
	}
	recursive := func(o optionCheck) optionCheck {
		if o.options == nil {
			o.options = []string{o.name}
		}
		o.sub, o.options = true, append([]string{"rbind"}, o.options...)
		return o
	}
	plain := list("MUST", "tmpfs",
		optionCheck{name: "async", options: []string{"sync", "async"}, not: "sync", super: true},
		optionCheck{name: "atime", options: []string{"noatime", "atime"}, not: "noatime"},
		optionCheck{name: "defaults", want: "rw"},
		optionCheck{name: "dev", options: []string{"nodev", "dev"}, not: "nodev"},
		optionCheck{name: "diratime", options: []string{"nodiratime", "diratime"}, not: "nodiratime"},
		optionCheck{name: "dirsync", want: "dirsync", super: true},
		optionCheck{name: "exec", options: []string{"noexec", "exec"}, not: "noexec"},
		optionCheck{name: "iversion"},
		optionCheck{name: "lazytime", want: "lazytime", super: true},
		optionCheck{name: "loud"},
		optionCheck{name: "noatime", want: "noatime"},
		optionCheck{name: "nodev", want: "nodev"},
		optionCheck{name: "nodiratime", want: "nodiratime"},
		optionCheck{name: "noexec", want: "noexec"},
		optionCheck{name: "noiversion"},
		optionCheck{name: "nolazytime", options: []string{"lazytime", "nolazytime"}, not: "lazytime", super: true},
		optionCheck{name: "norelatime"},
		optionCheck{name: "nostrictatime", options: []string{"strictatime", "nostrictatime"}, want: "relatime"},
		optionCheck{name: "nosuid", want: "nosuid"},
		optionCheck{name: "relatime", want: "relatime"},
		optionCheck{name: "ro", want: "ro"},
		optionCheck{name: "rw", options: []string{"ro", "rw"}, want: "rw"},
		optionCheck{name: "silent"},
		optionCheck{name: "strictatime", not: "relatime"},
		optionCheck{name: "suid", options: []string{"nosuid", "suid"}, not: "nosuid"},
		optionCheck{name: "sync", want: "sync", super: true},
	)
	should := list("SHOULD", "tmpfs",
		optionCheck{name: "nosymfollow", want: "nosymfollow"},
		optionCheck{name: "symfollow", options: []string{"nosymfollow", "symfollow"}, not: "nosymfollow"},
	)
	on := list("SHOULD", "bind",
		recursive(optionCheck{name: "rro", want: "ro"}),
		recursive(optionCheck{name: "rrw", options: []string{"rro", "rrw"}, want: "rw"}),
		recursive(optionCheck{name: "rnosuid", want: "nosuid"}),
		recursive(optionCheck{name: "rsuid", options: []string{"rnosuid", "rsuid"}, not: "nosuid"}),
		recursive(optionCheck{name: "rnodev", want: "nodev"}),
		recursive(optionCheck{name: "rdev", options: []string{"rnodev", "rdev"}, not: "nodev"}),
		recursive(optionCheck{name: "rnoexec", want: "noexec"}),
		recursive(optionCheck{name: "rexec", options: []string{"rnoexec", "rexec"}, not: "noexec"}),
		recursive(optionCheck{name: "rnoatime", want: "noatime"}),
		recursive(optionCheck{name: "ratime", options: []string{"rnoatime", "ratime"}, not: "noatime"}),
		recursive(optionCheck{name: "rnodiratime", want: "nodiratime"}),
		recursive(optionCheck{name: "rdiratime", options: []string{"rnodiratime", "rdiratime"}, not: "nodiratime"}),
		recursive(optionCheck{name: "rrelatime", want: "relatime"}),
		recursive(optionCheck{name: "rnorelatime"}),
		recursive(optionCheck{name: "rstrictatime", not: "relatime"}),
		recursive(optionCheck{name: "rnostrictatime", options: []string{"rstrictatime", "rnostrictatime"}, want: "relatime"}),
		recursive(optionCheck{name: "rnosymfollow", want: "nosymfollow"}),
		recursive(optionCheck{name: "rsymfollow", options: []string{"rnosymfollow", "rsymfollow"}, not: "nosymfollow"}),
	)
	return slices.Concat(plain, should, on)
}

func mountOptionChecks() []check {
	const s = "config: linux mount options"
	var list []check
	for _, o := range mountOptions() {
		list = append(list, check{s, o.level, o.name, o.check})
	}
	bound := func(f func(t *trial, m, sub mountPoint), options ...string) func(t *trial) {
		return func(t *trial) {
			t.nested(options...)
			r := t.report()
			var sub mountPoint
			if options[0] == "rbind" {
				sub = t.at(r, "/mnt/sub")
			}
			f(t, t.at(r, "/mnt"), sub)
		}
	}
	has := func(what string, inSub bool) func(t *trial, m, sub mountPoint) {
		return func(t *trial, m, sub mountPoint) {
			if inSub {
				m = sub
			}
			if what == "" && m.shared != "" || !strings.Contains(m.shared, what) {
				t.failf("propagation is %q, not %q", m.shared, what)
			}
		}
	}
	mapped := func(option, file, seen string) func(t *trial) {
		return func(t *trial) {
			t.mapped()
			dir := t.tmpfs("m")
			t.must(os.Mkdir(dir+"/sub", 0o755))
			t.tmpfs("m/sub")
			kind := strings.TrimSuffix(option, "idmap") + "bind"
			t.bind(dir, "/mnt", kind, option)
			t.mine()
			want(t, file, t.report("stat:" + file).Did["stat:"+file], seen)
		}
	}
	return append(list,
		check{s, "MUST", "bind", bound(func(*trial, mountPoint, mountPoint) {}, "bind")},
		check{s, "MUST", "bind: mounts within are not bound", func(t *trial) {
			t.nested("bind")
			want(t, "file of the mount within", t.report("stat:/mnt/sub/file").Did["stat:/mnt/sub/file"], "ENOENT")
		}},
		check{s, "MUST", "rbind: mounts within are bound too", bound(func(*trial, mountPoint, mountPoint) {}, "rbind")},
		check{s, "MUST", "private", bound(has("", false), "bind", "private")},
		check{s, "MUST", "shared", bound(has("shared:", false), "bind", "shared")},
		check{s, "MUST", "slave", bound(has("master:", false), "bind", "slave")},
		check{s, "MUST", "unbindable", bound(has("unbindable", false), "bind", "unbindable")},
		check{s, "MUST", "rprivate", bound(has("", true), "rbind", "rprivate")},
		check{s, "MUST", "rshared", bound(has("shared:", true), "rbind", "rshared")},
		check{s, "MUST", "rslave", bound(has("master:", true), "rbind", "rslave")},
		check{s, "MUST", "runbindable", bound(has("unbindable", true), "rbind", "runbindable")},
		check{s, "MUST", "remount", func(t *trial) {
			t.mounted(specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs"})
			t.mounted(specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: []string{"remount", "ro"}})
			want(t, "create", t.report("create:/mnt/x").Did["create:/mnt/x"], "EROFS")
		}},
		check{s, "MUST", "ro of a bind mount", func(t *trial) {
			t.nested("bind", "ro")
			want(t, "create", t.report("create:/mnt/x").Did["create:/mnt/x"], "EROFS")
		}},
		check{s, "SHOULD", "idmap: by the container's user namespace", mapped("idmap", "/mnt/file", "file 0644 0 0")},
		check{s, "SHOULD", "ridmap: mounts within too", mapped("ridmap", "/mnt/sub/file", "file 0644 0 0")},
		check{s, "MUST", "idmap without any mapping is an error", func(t *trial) {
			t.bind(t.tmpfs("m"), "/mnt", "bind", "idmap")
			t.refusesConfig()
		}},
	)
}

// nested binds a file system with another one in it to /mnt.
func (t *trial) nested(options ...string) {
	dir := t.tmpfs("outer")
	t.must(unix.Mount("", dir, "", unix.MS_SHARED, ""))
	t.must(os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	t.must(unix.Mount("", t.tmpfs("outer/sub"), "", unix.MS_SHARED, ""))
	t.bind(dir, "/mnt", options...)
}

func (o optionCheck) check(t *trial) {
	if o.kind == "bind" {
		t.nested(o.options...)
	} else {
		t.mounted(specs.Mount{Destination: "/mnt", Type: "tmpfs", Source: "tmpfs", Options: o.options})
	}
	place := "/mnt"
	if o.sub {
		place = "/mnt/sub"
	}
	m := t.at(t.report(), place)
	got := m.options
	if o.super {
		got = m.super
	}
	if o.want != "" && !slices.Contains(got, o.want) || o.not != "" && slices.Contains(got, o.not) {
		t.failf("options are %v", got)
	}
}
