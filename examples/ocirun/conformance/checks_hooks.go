package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hookKinds are in the order in which they run.
var hookKinds = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// hooks are those of one kind.
func (t *trial) hooks(kind string) *[]specs.Hook {
	if t.spec.Hooks == nil {
		t.spec.Hooks = &specs.Hooks{}
	}
	h := t.spec.Hooks
	//lint:ignore SA1019 prestart is deprecated, and still to be called
	return map[string]*[]specs.Hook{"prestart": &h.Prestart, "createRuntime": &h.CreateRuntime, "createContainer": &h.CreateContainer,
		"startContainer": &h.StartContainer, "poststart": &h.Poststart, "poststop": &h.Poststop}[kind]
}

// hook adds one that writes down what it sees, and ends with status.
func (t *trial) hook(kind, name string, status int) {
	path, file := t.probe(), t.dir+"/log/hooks"
	if kind == "startContainer" {
		path, file = "/probe", "/log/hooks"
	}
	list := t.hooks(kind)
	*list = append(*list, specs.Hook{Path: path, Args: []string{"probe", "hook", file, name, itoa(status)}, Env: []string{"HOOK=" + name}})
}

// hooked are what the hooks have seen.
func (t *trial) hooked() (list []hooked) {
	for _, line := range t.lines("hooks") {
		var h hooked
		t.must(json.Unmarshal([]byte(line), &h))
		list = append(list, h)
	}
	return list
}

func (t *trial) names() (names []string) {
	for _, h := range t.hooked() {
		names = append(names, h.Name)
	}
	return names
}

func (t *trial) wantHooks(when string, names ...string) {
	if got := t.names(); !slices.Equal(got, names) {
		t.failf("%s, %v have run, not %v", when, got, names)
	}
}

func hookChecks() []check {
	const s = "config: hooks"
	list := []check{
		{s, "MUST", "prestart, createRuntime and createContainer are called by create, in this order", func(t *trial) {
			t.everyHook()
			t.create("wait")
			t.wantHooks("after create", hookKinds[:3]...)
		}},
		{s, "MUST", "startContainer and poststart are called by start", func(t *trial) {
			t.everyHook()
			t.started()
			t.wantHooks("after start", hookKinds[:5]...)
		}},
		{s, "MUST", "poststop is called by delete, before it returns", func(t *trial) {
			t.everyHook()
			t.stopped()
			t.wantHooks("before delete", hookKinds[:5]...)
			t.ok("delete", t.id)
			t.wantHooks("after delete", hookKinds...)
		}},
		{s, "MUST", "timeout must be greater than zero", func(t *trial) {
			t.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: t.probe(), Args: []string{"probe", "exit", "0"}, Timeout: ref(-1)}}}
			t.refusesConfig()
		}},
		{s, "field", "timeout ends a hook, which has failed then", func(t *trial) {
			t.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: t.probe(), Args: []string{"probe", "slow"}, Timeout: ref(1)}}}
			t.refusesConfig()
		}},
		{s, "MUST", "a path that is not absolute is refused", func(t *trial) {
			t.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "probe"}}}
			t.refusesConfig()
		}},
		{s, "MUST", "startContainer is called before the program is", func(t *trial) {
			t.logged()
			t.hook("startContainer", "startContainer", 0)
			t.create("mark", "/log/hooks")
			t.ok("start", t.id)
			t.await("stopped")
			if l := t.lines("hooks"); len(l) != 2 || l[1] != "marked" {
				t.failf("%q", l)
			}
		}},
		{s, "MUST", "poststart is called after the program has been executed", func(t *trial) {
			t.hook("poststart", "poststart", 0)
			t.started()
			h := t.hooked()
			if len(h) != 1 || h[0].Status != "/probe wait " {
				t.failf("%+v", h)
			}
		}},
		{s, "MUST", "poststop: the container is gone when it is called", func(t *trial) {
			t.hook("poststop", "poststop", 0)
			t.stopped()
			t.ok("delete", t.id)
			if h := t.hooked(); len(h) != 1 || h[0].Root != "" {
				t.failf("%+v", h)
			}
		}},
	}
	for _, kind := range hookKinds {
		list = append(list, check{s, "MUST", kind + ": in the listed order", func(t *trial) {
			t.logged()
			t.hook(kind, "first", 0)
			t.hook(kind, "second", 0)
			t.whole()
			t.wantHooks("in the end", "first", "second")
		}}, check{s, "MUST", kind + ": the state comes over stdin", func(t *trial) { t.hookState(kind) }},
			check{s, "field", kind + ": args and env are as configured", func(t *trial) {
				t.logged()
				t.hook(kind, "one", 0)
				t.whole()
				h := t.hooked()
				if len(h) != 1 || h[0].Args[0] != "probe" || !slices.Contains(h[0].Env, "HOOK=one") {
					t.failf("%+v", h)
				}
			}},
			check{s, "MUST", kind + ": " + map[bool]string{true: "runs in the container's namespaces", false: "runs in the runtime's namespaces"}[inContainer(kind)], func(t *trial) { t.hookPlace(kind) }})
	}
	for _, kind := range hookKinds[:3] {
		list = append(list, check{"runtime: lifecycle", "MUST", kind + " fails: create fails, and there is no container", func(t *trial) {
			t.hook(kind, "bad", 1)
			t.refusesConfig()
		}}, check{"runtime: lifecycle", "MUST", kind + " fails: poststop is called", func(t *trial) {
			t.hook(kind, "bad", 1)
			t.hook("poststop", "poststop", 0)
			t.refusesConfig()
			t.wantHooks("after create", "bad", "poststop")
		}})
	}
	return append(list,
		check{"runtime: lifecycle", "MUST", "startContainer fails: the program is not run", func(t *trial) {
			t.logged()
			t.hook("startContainer", "bad", 1)
			t.create("mark", "/log/marked")
			t.oci("start", t.id)
			t.oci("state", t.id)
			t.refuseFile("log/marked")
		}},
		check{"runtime: lifecycle", "MUST", "startContainer fails: start fails", func(t *trial) {
			t.logged()
			t.hook("startContainer", "bad", 1)
			t.create("wait")
			t.refuses("start", t.id)
		}},
		check{"runtime: lifecycle", "MUST", "poststart fails: start fails, and the container is stopped", func(t *trial) {
			t.hook("poststart", "bad", 1)
			t.create("wait")
			t.refuses("start", t.id)
			if s := t.oci("state", t.id); s.code == 0 {
				t.await("stopped")
			}
		}},
		check{"runtime: lifecycle", "MUST", "poststop fails: delete succeeds, and the other hooks are called", func(t *trial) {
			t.hook("poststop", "bad", 1)
			t.hook("poststop", "good", 0)
			t.stopped()
			t.ok("delete", t.id)
			t.wantHooks("after delete", "bad", "good")
		}},
	)
}

func inContainer(kind string) bool { return kind == "createContainer" || kind == "startContainer" }

func (t *trial) everyHook() {
	t.logged()
	for _, k := range hookKinds {
		t.hook(k, k, 0)
	}
}

// whole is a life.
func (t *trial) whole() {
	t.stopped()
	t.ok("delete", t.id)
}

// hookState checks what a hook is told.
func (t *trial) hookState(kind string) {
	t.logged()
	t.spec.Annotations = map[string]string{"org.example.key": "value"}
	t.hook(kind, "one", 0)
	t.create("wait")
	t.ok("start", t.id)
	t.ok("kill", t.id, "KILL")
	t.await("stopped")
	t.ok("delete", t.id)
	h := t.hooked()
	if len(h) != 1 {
		t.failf("%+v", h)
	}
	var st specs.State
	t.must(json.Unmarshal([]byte(h[0].Stdin), &st))
	wanted := map[string]string{"prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "startContainer": "created", "poststart": "running", "poststop": "stopped"}[kind]
	if kind != "poststop" && st.Pid <= 0 || st.ID != t.id || st.Bundle != t.bundle() || st.Annotations["org.example.key"] != "value" {
		t.failf("the state is %s", h[0].Stdin)
	}
	// Those of create may say created, as the first runtimes did.
	if st.Status != specs.ContainerState(wanted) && !(wanted == "creating" && st.Status == "created") && !(kind == "startContainer" && st.Status == "creating") {
		t.failf("status is %s, not %s", st.Status, wanted)
	}
}

// hookPlace checks in whose namespaces a hook runs.
func (t *trial) hookPlace(kind string) {
	t.logged()
	t.hook(kind, "one", 0)
	t.create("wait")
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", t.state().Pid))
	t.must(err)
	mine, _ := os.Readlink("/proc/self/ns/mnt")
	t.ok("start", t.id)
	t.ok("kill", t.id, "KILL")
	t.await("stopped")
	t.ok("delete", t.id)
	h := t.hooked()
	wanted := map[bool]string{true: its, false: mine}[inContainer(kind)]
	if len(h) != 1 || h[0].Mounts != wanted {
		t.failf("its mount namespace is not %s: %s", wanted, strings.Join(t.lines("hooks"), " "))
	}
}
