package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func bundleChecks() []check {
	const s = "bundle: container format"
	return []check{
		{s, "MUST", "config.json in the bundle's root is read", func(t *trial) { t.report() }},
		{s, "MUST", "a bundle without config.json is refused", func(t *trial) { t.refusesCreate() }},
		{s, "MUST", "a config.json that is no JSON is refused", func(t *trial) { t.writeRaw([]byte("{")); t.refusesCreate() }},
		{s, "field", "the bundle may be any directory, by a relative path", func(t *trial) {
			t.spec.Process.Args = []string{"/probe", "report"}
			t.write()
			t.made = append(t.made, t.id)
			t.parse(t.ok("run", "--bundle", "../bundle", t.id))
		}},
	}
}

func stateChecks() []check {
	const s = "runtime: state"
	created := func(f func(t *trial, st specs.State)) func(t *trial) {
		return func(t *trial) {
			t.spec.Annotations = map[string]string{"org.example.key": "value"}
			t.create("wait")
			f(t, t.state())
		}
	}
	return []check{
		{s, "MUST", "ociVersion is given, as SemVer", created(func(t *trial, st specs.State) {
			if !regexp.MustCompile(`^\d+\.\d+\.\d+(-.+)?$`).MatchString(st.Version) {
				t.failf("ociVersion is %q", st.Version)
			}
		})},
		{s, "MUST", "id is the container's", created(func(t *trial, st specs.State) { want(t, "id", st.ID, t.id) })},
		{s, "MUST", "status is created after create", created(func(t *trial, st specs.State) { want(t, "status", st.Status, "created") })},
		{s, "MUST", "status is running after start", func(t *trial) { t.started(); want(t, "status", t.state().Status, "running") }},
		{s, "MUST", "status is stopped when the process has ended", func(t *trial) { t.stopped() }},
		{s, "MUST", "pid is that of the container process, as the host sees it, when created", created(func(t *trial, st specs.State) {
			if err := unix.Kill(st.Pid, 0); st.Pid <= 1 || err != nil {
				t.failf("pid %d: %v", st.Pid, err)
			}
		})},
		{s, "MUST", "pid is that of the container process when running", func(t *trial) {
			t.started()
			line, pid := "", itoa(t.state().Pid)
			for end := time.Now().Add(time.Minute); line != "/probe wait " && time.Now().Before(end); time.Sleep(10 * time.Millisecond) { // start may return before it is executed
				b, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
				line = strings.ReplaceAll(string(b), "\x00", " ")
			}
			want(t, "command line", line, "/probe wait ")
		}},
		{s, "MUST", "bundle is the absolute path of the bundle", created(func(t *trial, st specs.State) { want(t, "bundle", st.Bundle, t.bundle()) })},
		{s, "MUST", "annotations are those of the configuration", created(func(t *trial, st specs.State) {
			want(t, "annotation", st.Annotations["org.example.key"], "value")
		})},
		{s, "MUST", "what is printed has the types of the schema", created(func(t *trial, _ specs.State) {
			var m map[string]any
			t.must(json.Unmarshal([]byte(t.ok("state", t.id).out), &m))
			for _, k := range []string{"ociVersion", "id", "status", "bundle"} {
				if _, ok := m[k].(string); !ok {
					t.failf("%s is %v", k, m[k])
				}
			}
			if _, ok := m["pid"].(float64); !ok {
				t.failf("pid is %v", m["pid"])
			}
		})},
	}
}

func lifecycleChecks() []check {
	const s = "runtime: lifecycle"
	return []check{
		{s, "MUST", "the program is not run by create", func(t *trial) {
			t.logged()
			t.create("mark", "/log/marked")
			t.refuseFile("log/marked")
		}},
		{s, "MUST", "the program is run by start", func(t *trial) {
			t.logged()
			t.create("mark", "/log/marked")
			t.ok("start", t.id)
			t.await("stopped")
			t.wantLines("marked", "marked")
		}},
		{s, "MUST", "what is asked for is there after create", func(t *trial) {
			t.spec.Hostname = "conformance"
			t.create("wait")
			mine, _ := os.Readlink("/proc/self/ns/uts")
			its, err := os.Readlink("/proc/" + itoa(t.state().Pid) + "/ns/uts")
			t.must(err)
			if mine == its {
				t.failf("the created container has the host's uts namespace")
			}
		}},
		{s, "MUST", "a change of config.json after create has no effect", func(t *trial) {
			t.logged()
			t.create("mark", "/log/marked")
			t.spec.Process.Args = []string{"/probe", "mark", "/log/other"}
			t.spec.Hostname = "other"
			t.write()
			t.ok("start", t.id)
			t.await("stopped")
			t.wantLines("marked", "marked")
			t.refuseFile("log/other")
		}},
		{s, "MUST", "an environment that cannot be made is an error, and leaves no container", func(t *trial) {
			t.mounted(specs.Mount{Destination: "/mnt", Type: "no-such-file-system", Source: "none"})
			t.refusesConfig()
		}},
		{s, "MUST", "after an error the same id can be used", func(t *trial) {
			good := t.spec.Mounts
			t.mounted(specs.Mount{Destination: "/mnt", Type: "no-such-file-system", Source: "none"})
			t.refusesConfig()
			t.spec.Mounts = good
			t.create("wait")
		}},
		{s, "MUST", "a program that does not exist is an error of create or start", func(t *trial) {
			t.spec.Process.Args = []string{"/no/such/program"}
			t.write()
			t.made = append(t.made, t.id)
			if s := t.oci("create", "--bundle", t.bundle(), t.id); s.code == 0 {
				t.refuses("start", t.id)
			}
		}},
		{s, "field", "the exit status of run is that of the program", func(t *trial) { want(t, "exit status", t.runs("exit", "7").code, 7) }},
	}
}

// operationChecks are those of state, create, start, kill and delete.
func operationChecks() []check {
	const state, create, start, kill, del = "runtime: query state", "runtime: create", "runtime: start", "runtime: kill", "runtime: delete"
	id := func(text string) func(t *trial) {
		return func(t *trial) {
			t.write()
			t.refuses("create", "--bundle", t.bundle(), text)
		}
	}
	return []check{
		{state, "MUST", "an error without an id", func(t *trial) { t.refuses("state") }},
		{state, "MUST", "an error for a container that does not exist", func(t *trial) { t.refuses("state", t.id) }},
		{create, "MUST", "an error without an id", func(t *trial) { t.write(); t.refuses("create", "--bundle", t.bundle()) }},
		{create, "MUST", "an error for a bundle that does not exist", func(t *trial) { t.refuses("create", "--bundle", t.dir+"/none", t.id) }},
		{create, "MUST", "an error for an id that is in use, and the container stays", func(t *trial) {
			t.started()
			t.refuses("create", "--bundle", t.bundle(), t.id)
			want(t, "status", t.state().Status, "running")
		}},
		{create, "MUST", "an error for an id that is empty", id("")},
		{create, "MUST", "an error for an id that is a path", id("../caisson-conformance")},
		{create, "MUST", "an error for an id with characters no file may have", id("caisson/conformance")},
		{create, "MUST", "a property that cannot be applied is an error: sysctl", func(t *trial) {
			t.spec.Linux.Sysctl = map[string]string{"net.no_such_setting": "1"}
			t.refusesConfig()
		}},
		{create, "MUST", "a property that cannot be applied is an error: mount source", func(t *trial) {
			t.bind(t.dir+"/none", "/mnt", "bind")
			t.refusesConfig()
		}},
		{start, "MUST", "an error without an id", func(t *trial) { t.refuses("start") }},
		{start, "MUST", "an error for a container that does not exist", func(t *trial) { t.refuses("start", t.id) }},
		{start, "MUST", "an error for a running container, which runs on", func(t *trial) {
			t.started()
			t.refuses("start", t.id)
			want(t, "status", t.state().Status, "running")
		}},
		{start, "MUST", "an error for a stopped container, which is not run again", func(t *trial) {
			t.logged()
			t.create("mark", "/log/marked")
			t.ok("start", t.id)
			t.await("stopped")
			t.refuses("start", t.id)
			t.wantLines("marked", "marked")
		}},
		{start, "MUST", "an error if process is not set", func(t *trial) {
			t.spec.Process = nil
			t.write()
			t.made = append(t.made, t.id)
			if s := t.oci("create", "--bundle", t.bundle(), t.id); s.code == 0 {
				t.refuses("start", t.id)
			}
		}},
		{kill, "MUST", "an error without an id", func(t *trial) { t.refuses("kill") }},
		{kill, "MUST", "an error for a container that does not exist", func(t *trial) { t.refuses("kill", t.id, "KILL") }},
		{kill, "MUST", "an error for a stopped container", func(t *trial) { t.stopped(); t.refuses("kill", t.id, "TERM") }},
		{kill, "MUST", "a running process gets the signal: by name", killed("USR1", "user defined signal 1")},
		{kill, "MUST", "a running process gets the signal: with SIG", killed("SIGHUP", "hangup")},
		{kill, "MUST", "a running process gets the signal: by number", killed("15", "terminated")},
		{kill, "MUST", "a created container gets the signal", func(t *trial) {
			t.create("wait")
			t.ok("kill", t.id, "KILL")
			t.await("stopped")
		}},
		{kill, "MUST", "an unknown signal is an error, and none is sent", func(t *trial) {
			t.started()
			t.refuses("kill", t.id, "NONE")
			want(t, "status", t.state().Status, "running")
		}},
		{del, "MUST", "an error without an id", func(t *trial) { t.refuses("delete") }},
		{del, "MUST", "an error for a container that does not exist", func(t *trial) { t.refuses("delete", t.id) }},
		{del, "MUST", "an error for a running container, which runs on", func(t *trial) {
			t.started()
			t.refuses("delete", t.id)
			want(t, "status", t.state().Status, "running")
		}},
		{del, "MUST", "an error for a created container, which stays", func(t *trial) {
			t.create("wait")
			t.refuses("delete", t.id)
			want(t, "status", t.state().Status, "created")
		}},
		{del, "MUST", "a stopped container is gone", func(t *trial) { t.stopped(); t.ok("delete", t.id); t.refuses("state", t.id) }},
		{del, "MUST", "its id can be used again", func(t *trial) { t.stopped(); t.ok("delete", t.id); t.create("wait") }},
		{del, "MUST", "the cgroups it made are removed", func(t *trial) {
			t.spec.Linux.CgroupsPath = t.group()
			t.stopped()
			t.ok("delete", t.id)
			for _, dir := range groupDirs(t.spec.Linux.CgroupsPath) {
				if _, err := os.Stat(dir); err == nil {
					t.failf("%s is there", dir)
				}
			}
		}},
		{del, "MUST", "what it did not make stays: the bundle, and a namespace it joined", func(t *trial) {
			path := t.keepNamespace("net", unix.CLONE_NEWNET)
			t.namespace(specs.NetworkNamespace, path)
			t.stopped()
			t.ok("delete", t.id)
			if _, err := os.Stat(t.root("probe")); err != nil {
				t.failf("%v", err)
			}
			t.isNamespace(path)
		}},
	}
}

// killed: the signal arrives, whatever its form.
func killed(signal, name string) func(t *trial) {
	return func(t *trial) {
		t.logged()
		t.create("signal", "/log/signal")
		t.ok("start", t.id)
		t.until("process that is ready", func() bool { return len(t.lines("signal")) == 1 })
		t.ok("kill", t.id, signal)
		t.await("stopped")
		t.wantLines("signal", "ready", name)
	}
}

func linuxRuntimeChecks() []check {
	const s = "runtime-linux: "
	links := []check{{s + "file descriptors", "field", "only the standard streams are open", func(t *trial) {
		if r := t.report(); len(r.Fds) != 0 {
			t.failf("open are %v", r.Fds)
		}
	}}, {s + "file descriptors", "field", "descriptors of --preserve-fds follow", func(t *trial) {
		t.must(os.WriteFile(t.dir+"/handed", []byte("over"), 0o644))
		r := t.reportPassing(t.dir+"/handed", "read:/proc/self/fd/3")
		want(t, "descriptor 3", r.Did["read:/proc/self/fd/3"], "ok over")
	}}}
	for _, l := range [][2]string{{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"}} {
		links = append(links, check{s + "dev symbolic links", "MUST", l[0] + " is a link to " + l[1], func(t *trial) {
			r := t.report("stat:" + l[0])
			want(t, l[0], r.Did["stat:"+l[0]], "link 0777 0 0 "+l[1])
		}})
	}
	return links
}
