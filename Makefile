# What a developer and continuous integration run. "make test" is all that must pass before a change is merged.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

FUZZTIME    ?= 30s
SOAK        ?= 20000
SOAKTIME    ?= 1h
STRESS      ?= 30m
KILLS       ?= 500
POWERCUTS   ?= 100
BIGBLOB     ?= 6000000000
STATICCHECK := v0.8.2
GOVULNCHECK := v1.6.0
APIDIFF     := v0.0.0-20261014143641-f0251eb4aa3e
VM          := $(CURDIR)/internal/testutil/vm

ifeq ($(shell id -u),0)
HALVES := test-root test-user test-bare
else
HALVES := test-self
endif
EXAMPLES := $(if $(wildcard examples/go.mod),./examples/...)

.PHONY: help setup test test-root test-user test-bare test-self test-race test-old test-examples test-browser test-engines test-vm test-vm-small test-debian test-arm64 test-amd64 kernels conformance \
	fmt licences api reproducible cover vet cross lint vuln generate fuzz soak kills powercuts bigblob bench clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

test: setup fmt vet cross lint licences api $(HALVES) test-race test-examples reproducible vuln ## everything, as root and as ordinary users: what CI runs
	@echo "== all passed"

setup: ## install what the tests need (Debian, Ubuntu), make the users they run as
	@.ci/setup

fmt: ## no file that gofmt would change
	@echo "== gofmt"; out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt -w $$out" >&2; exit 1; }

vet: ## go vet for both architectures
	@echo "== go vet"
	@GOARCH=amd64 go vet ./... $(EXAMPLES)
	@GOARCH=arm64 CGO_ENABLED=0 go vet ./... $(EXAMPLES)

cross: ## compile for what is supported, and for what must only compile
	@echo "== go build: linux/amd64 linux/arm64 darwin/arm64 windows/amd64"
	@CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build ./...
	@CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build ./...
	@CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build ./...
	@CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go build ./...
	@.ci/refused

lint: ## staticcheck; golangci-lint too where it is installed
	@echo "== staticcheck $(STATICCHECK)"
	@.ci/tool staticcheck honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) ./... $(EXAMPLES)
	@if command -v golangci-lint >/dev/null; then echo "== golangci-lint"; golangci-lint run ./...; fi

vuln: ## known vulnerabilities in what is linked, where the database can be reached
	@echo "== govulncheck $(GOVULNCHECK)"
	@.ci/vuln golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK)

licences: ## the licence of each module that is linked; fails for those that ask too much
	@echo "== licences"; .ci/licences

api: ## what is not compatible with the last tag
	@echo "== apidiff"; .ci/api golang.org/x/exp/cmd/apidiff@$(APIDIFF)

reproducible: ## two builds of each example are the same
	@echo "== reproducible builds"; .ci/reproducible

cover: setup ## what the tests reach, as root, as users and, with GUEST=1, in a virtual machine; what none reaches is listed
	@.ci/cover

test-root: setup ## all tests as root
	@.ci/test root
	@.ci/test vm

test-user: setup ## all tests as a user with subordinate ids (needs root)
	@.ci/test user

test-bare: setup ## all tests as a user without subordinate ids (needs root)
	@.ci/test bare

test-self: setup ## all tests as whoever runs them
	@echo "note: not root, so the tests that need root do not run"
	@.ci/test self

test-race: setup ## all tests with the race detector
	@.ci/test race

test-old: setup ## root's and a user's tests of what touches the kernel, without the calls and flags later than Linux 5.14
	@.ci/test old

test-examples: setup ## the examples' tests
	@.ci/test examples

test-browser: setup ## the judge's page, used in a headless Chromium (Debian: installs it, 410 MB, if it is missing)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium
	go test -count=1 -timeout 10m -v -run TestJudgePage ./examples

test-engines: setup ## ocirun under podman, buildah, containerd, its CRI and Docker, into docs/conformance.md (Debian: installs what is missing, 400 MB)
	@DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends podman buildah containerd docker.io docker-compose containernetworking-plugins iptables >/dev/null
	CAISSON_ENGINES_PAGE=$(CURDIR)/docs/conformance.md go test -count=1 -timeout 10m -v -run 'TestOcirun(Podman|Buildah|Containerd|CRI|Docker)' ./examples

test-debian: setup ## a package manager, a script and a terminal in a Debian root filesystem (debootstrap)
	@.ci/debian

test-vm-small: setup ## a whole container and package cgroups in a virtual machine with pure cgroup v2
	@.ci/vm

test-arm64: ## all tests that touch the kernel on arm64, in virtual machines (see docs/testing.md)
	@$(VM)/suite arm64

test-amd64: ## the same on amd64, with pure cgroup v2 and two kernels
	@$(VM)/suite amd64

test-vm: test-amd64 test-arm64 ## both, and the tests of the virtual machines themselves
	go test -timeout 10m ./internal/testutil/vm

kernels: setup ## what works on this machine and in each guest, by examples/doctor, into docs/kernels.md
	@$(VM)/kernels

conformance: setup ## what the checks of the runtime specification say about ocirun, crun and runc, into docs/conformance.md (needs root)
	@.ci/conformance

generate: ## make generated files again; fails if that changes them
	go generate ./...
	git diff --exit-code -- '*/z*.go'

fuzz: ## every fuzz test for FUZZTIME (30s)
	@.ci/fuzz $(FUZZTIME)

soak: setup ## SOAK (20000) starts, then programs that do everything, killed at random for SOAKTIME (1h), then each container used in every way at once for STRESS (30m); nothing may be left behind
	CAISSON_SOAK=$(SOAK) go test -run 'Soak' -timeout 60m -v .
	CAISSON_SOAK_TIME=$(SOAKTIME) go test -run 'SoakMixed' -timeout 0 -v ./internal/nettest
	CAISSON_TEST_STRESS=$(STRESS) go test -run 'OneContainerFromManyGoroutines' -timeout 0 -v .

kills: setup ## host programs killed at every system call, and KILLS (500) times at random
	CAISSON_TEST_KILL_STEP=1 CAISSON_TEST_KILLS=$(KILLS) go test -run 'Killed' -timeout 180m -v . ./netns ./netns/wireguard ./image

powercuts: setup ## a virtual machine with a store on ext4 loses its power POWERCUTS (100) times
	CAISSON_TEST_POWERCUTS=$(POWERCUTS) go test -run 'PowerCuts' -timeout 120m -v ./image

bigblob: ## a layer of BIGBLOB (6000000000) bytes is pulled, unpacked and pushed; $$TMPDIR has to have room for it twice
	CAISSON_TEST_BIGBLOB=$(BIGBLOB) go test -run 'BigBlob' -timeout 60m -v ./image

bench: ## side by side with the C floors and with other engines, where they are installed (see bench/doc.go)
	@$(MAKE) -C bench

clean: ## remove what was built
	rm -rf bin
