# SPDX-License-Identifier: Apache-2.0
# criu-netfreeze: `make demo` and `make test` are the two commands to know; `make
# help` lists the others. PREFIX and DESTDIR work as usual.

PREFIX     ?= /usr/local
DESTDIR    ?=
BINDIR      = $(PREFIX)/bin
LIBEXECDIR  = $(PREFIX)/libexec/criu-netfreeze
SYSCONFDIR ?= /etc/criu
CNIBINDIR  ?= /opt/cni/bin
DATADIR     = $(PREFIX)/share/criu-netfreeze
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)

GO      ?= go
MODULE   = github.com/criu-netfreeze/criu-netfreeze
LDFLAGS  = -s -w -X $(MODULE)/internal/cli.Version=$(VERSION) \
           -X $(MODULE)/internal/cli.Commit=$(COMMIT) \
           -X $(MODULE)/internal/hook.Program=$(LIBEXECDIR)/netfreeze-settler \
           -X $(MODULE)/install.LibexecDir=$(LIBEXECDIR)
# Where the hook begins: before Go's runtime does (internal/hook/early).
EARLY    = $(if $(filter amd64 arm64,$(shell $(GO) env GOARCH)),-E $(MODULE)/internal/hook/early.entry)
GOBUILD  = CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
OUT      = build
SCRIPTS  = pre-dump post-dump pre-restore post-resume
LAB      = testdata/lab/lab
CNI      = v1.3.1
CRICTL   = v1.34.0
CRANE    = v0.20.7
# Go leaves directories called testdata out of ./...; testdata/netstack is a module
# of its own.
PACKAGES = ./... ./testdata/traffic/... ./testdata/delay ./testdata/demo ./bench/testdata/empty
NETSTACK = testdata/netstack
# The test of the Kubernetes manifests, with Kubernetes' own types: another module.
MANIFESTS = testdata/kubernetes
# The linter, in a directory named by its version, so that another one is built anew.
GOLANGCI = $(CURDIR)/build/tools/golangci-lint-v2.12.0/golangci-lint
# What writes .deb and .rpm. Later versions need modules that not every proxy serves.
NFPM     = $(CURDIR)/build/tools/nfpm-v2.45.0/nfpm

.PHONY: all help build install uninstall demo test unit vet lint e2e e2e-kubelet callers faults soak fuzz bench lab deps clean traffic netstack cnitool crictl crane image build/image packages packages-twice man

all: build

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

build: ## build the programs and the scripts' links into build/
	@mkdir -p $(OUT)
	$(GOBUILD) -o $(OUT)/netfreeze ./cmd/netfreeze
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS) $(EARLY)' -o $(OUT)/netfreeze-hook ./cmd/netfreeze-hook
	$(GOBUILD) -o $(OUT)/netfreeze-settler ./cmd/netfreeze-settler
	$(GOBUILD) -o $(OUT)/netfreeze-cni ./cmd/netfreeze-cni
	$(GOBUILD) -o $(OUT)/netfreeze-oci ./cmd/netfreeze-oci
	@for s in $(SCRIPTS); do ln -sf netfreeze-hook $(OUT)/$$s; done

# What is built is installed as it is: root may have no Go.
install: ## install below DESTDIR and PREFIX (CRIU's configuration: netfreeze install)
	@{ test -x $(OUT)/netfreeze-hook && test -x $(OUT)/netfreeze-settler; } || $(MAKE) --no-print-directory build
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(SYSCONFDIR) $(DESTDIR)$(CNIBINDIR) $(DESTDIR)$(DATADIR)
	install -m 0755 $(OUT)/netfreeze $(DESTDIR)$(BINDIR)/netfreeze
	install -m 0755 $(OUT)/netfreeze-hook $(DESTDIR)$(LIBEXECDIR)/netfreeze-hook
	install -m 0755 $(OUT)/netfreeze-settler $(DESTDIR)$(LIBEXECDIR)/netfreeze-settler
	install -m 0755 $(OUT)/netfreeze-oci $(DESTDIR)$(LIBEXECDIR)/netfreeze-oci
	install -m 0755 $(OUT)/netfreeze-cni $(DESTDIR)$(CNIBINDIR)/netfreeze-cni
	sed 's|/usr/local/libexec/criu-netfreeze|$(LIBEXECDIR)|' install/oci-hook.json >$(DESTDIR)$(DATADIR)/oci-hook.json
	install -m 0644 install/prometheus/alerts.yaml $(DESTDIR)$(DATADIR)/alerts.yaml
	@for s in $(SCRIPTS); do ln -sf netfreeze-hook $(DESTDIR)$(LIBEXECDIR)/$$s; done
	@if test -e $(DESTDIR)$(SYSCONFDIR)/netfreeze.toml; then \
		echo "$(DESTDIR)$(SYSCONFDIR)/netfreeze.toml is kept as it is"; \
	else install -m 0644 install/netfreeze.toml $(DESTDIR)$(SYSCONFDIR)/netfreeze.toml; fi

uninstall: ## remove what install put there; a changed netfreeze.toml stays (refused while something is held; FORCE=1)
	@test -n "$(DESTDIR)$(FORCE)" || ! test -x $(BINDIR)/netfreeze || $(BINDIR)/netfreeze uninstall --dry-run >/dev/null
	rm -f $(DESTDIR)$(BINDIR)/netfreeze $(DESTDIR)$(CNIBINDIR)/netfreeze-cni $(DESTDIR)$(DATADIR)/oci-hook.json $(DESTDIR)$(DATADIR)/alerts.yaml
	cd $(DESTDIR)$(LIBEXECDIR) 2>/dev/null && rm -f netfreeze-hook netfreeze-settler netfreeze-oci $(SCRIPTS) || true
	rmdir $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(DATADIR) 2>/dev/null || true
	@if cmp -s install/netfreeze.toml $(DESTDIR)$(SYSCONFDIR)/netfreeze.toml; then \
		rm -f $(DESTDIR)$(SYSCONFDIR)/netfreeze.toml; rmdir $(DESTDIR)$(SYSCONFDIR) 2>/dev/null || true; fi

# Its cache holds paths: another checkout's would be taken for this one's.
lint: export GOLANGCI_LINT_CACHE = $(CURDIR)/build/lint
lint: $(GOLANGCI) ## check style and common mistakes (the first time it compiles golangci-lint)
	$(GOLANGCI) run $(PACKAGES)
	cd $(NETSTACK) && $(GOLANGCI) run ./...
	cd $(MANIFESTS) && $(GOLANGCI) run ./...
	for f in testdata/lab/lab testdata/lab/deps e2e/zdtm.sh .ci/run install/package/build; do bash -n $$f || exit 1; done

$(GOLANGCI):
	CGO_ENABLED=0 GOBIN=$(@D) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(patsubst golangci-lint-%,%,$(notdir $(@D)))

vet: ## run go vet on everything, the end-to-end tests included
	$(GO) vet $(PACKAGES)
	$(GO) vet -tags e2e,kubelet ./e2e
	$(GO) vet -C $(NETSTACK) ./...
	$(GO) vet -C $(MANIFESTS) ./...

unit: vet ## run go vet and the unit tests with the race detector (as root, in namespaces of their own)
	CGO_ENABLED=1 $(GO) test -race $(PACKAGES)
	$(GO) test -C $(MANIFESTS) ./...

test: deps unit e2e ## run all tests (as root)
	$(MAKE) --no-print-directory faults RUNS=200 SEED=1

deps: ## install what the tests and the demo need (Debian, as root; elsewhere it names them)
	testdata/lab/deps

clean: ## remove build/, not the lab (testdata/lab/lab clean)
	rm -rf build

# The programs know each other by their paths, so that those of the image are built anew.
IMAGE    = localhost/criu-netfreeze:latest
build/image: # what the image contains
	rm -rf build/image
	$(MAKE) --no-print-directory build install OUT=build/image/programs DESTDIR=$(CURDIR)/build/image/root \
		PREFIX=/opt/criu-netfreeze CNIBINDIR=/opt/criu-netfreeze/cni SYSCONFDIR=/opt/criu-netfreeze/share >/dev/null
	cp install/image/Containerfile build/image

image: build/image ## build the DaemonSet's image with buildah (IMAGE=registry/name:tag)
	buildah bud --file build/image/Containerfile --tag $(IMAGE) build/image/root

$(NFPM):
	CGO_ENABLED=0 GOBIN=$(@D) $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(patsubst nfpm-%,%,$(notdir $(@D)))

packages: $(NFPM) ## build the .deb and .rpm for amd64 and arm64 into build/packages (docs/packages.md)
	rm -rf build/packages
	NFPM=$(NFPM) install/package/build build/packages amd64 arm64

packages-twice: packages ## build the packages once more, elsewhere, and compare: the bytes are the same
	rm -rf build/again
	cd / && NFPM=$(NFPM) $(CURDIR)/install/package/build $(CURDIR)/build/again/a/longer/path amd64 arm64
	for f in build/packages/*.deb build/packages/*.rpm build/packages/*.json; do cmp $$f build/again/a/longer/path/$${f##*/} || exit 1; done
	rm -rf build/again

man: ## write the manual pages, docs/man, from the commands
	rm -rf docs/man
	$(GO) run ./install/package/gen man docs/man

# A package and its successor, for this machine.
build/e2e-packages: $(NFPM)
	rm -rf $@
	NFPM=$(NFPM) PACKAGE_RELEASE="1 2" install/package/build $@ $(shell $(GO) env GOARCH)

.PHONY: build/e2e-packages

traffic: # the program that the end-to-end tests and the demo dump
	CGO_ENABLED=0 $(GO) build -trimpath -o build/traffic ./testdata/traffic

netstack: # a peer with gVisor's TCP, for the end-to-end tests
	CGO_ENABLED=0 $(GO) build -C $(NETSTACK) -trimpath -o $(CURDIR)/build/netstack .

lab: ## build the lab's root file system with a real CRIU, once (testdata/lab/lab --help)
	$(LAB) build

cnitool: # the CNI project's own runtime, for the end-to-end tests
	@test -x build/cnitool || CGO_ENABLED=0 GOBIN=$(CURDIR)/build $(GO) install github.com/containernetworking/cni/cnitool@$(CNI)

crictl: # the kubelet's side of the CRI, for the end-to-end tests
	@test -x build/crictl || CGO_ENABLED=0 GOBIN=$(CURDIR)/build $(GO) install sigs.k8s.io/cri-tools/cmd/crictl@$(CRICTL)

crane: # a registry on localhost, and images for it, for the end-to-end tests
	@test -x build/crane || CGO_ENABLED=0 GOBIN=$(CURDIR)/build $(GO) install github.com/google/go-containerregistry/cmd/crane@$(CRANE)

build/limits.so: e2e/testdata/limits.c # for CRIU where root lacks CAP_SYS_RESOURCE
	@mkdir -p build
	gcc -O2 -Wall -shared -fPIC -o $@ $<

build/busybox-static.deb: # what the documentation has people install (Debian)
	@mkdir -p build/busybox
	cd build/busybox && rm -f *.deb && { apt-get -qq download busybox-static || { apt-get -qq update && apt-get -qq download busybox-static; }; }
	mv build/busybox/busybox-static_*.deb $@

e2e: build lab traffic netstack cnitool crictl crane build/limits.so build/image build/e2e-packages build/busybox-static.deb ## run the end-to-end tests in the lab, as root (RUN=TestMove/nftables selects)
	rm -rf build/dest
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/build/dest PREFIX=/usr/local >/dev/null
	CGO_ENABLED=0 $(GO) test -c -tags e2e -o build/e2e.test ./e2e
	rm -rf build/docs && cp -a docs build/docs && cp README.md build/docs
	@mkdir -p build/keep
	NETFREEZE_KEEP=/opt/keep $(LAB) run --share $(CURDIR)/build:/opt/build --share $(CURDIR)/build/keep:/opt/keep:rw -- \
		/opt/build/e2e.test -test.v -test.timeout 30m $(if $(RUN),-test.run '$(RUN)')

KUBELET  = build/kubelet-v1.37.2
$(KUBELET): # Kubernetes' own, a module of its own: large, and about 8 minutes on two processors
	CGO_ENABLED=0 $(GO) build -C testdata/kubelet -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ .

e2e-kubelet: build lab traffic crictl crane $(KUBELET) ## have a real kubelet checkpoint and restore a pod over containerd, as root (builds the kubelet first)
	rm -rf build/dest
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/build/dest PREFIX=/usr/local >/dev/null
	CGO_ENABLED=0 $(GO) test -c -tags e2e,kubelet -o build/e2e-kubelet.test ./e2e
	ln -f $(KUBELET) build/kubelet
	@mkdir -p build/keep
	NETFREEZE_KEEP=/opt/keep $(LAB) run --share $(CURDIR)/build:/opt/build --share $(CURDIR)/build/keep:/opt/keep:rw -- \
		/opt/build/e2e-kubelet.test -test.v -test.timeout 10m -test.run '^TestKubelet$$'

callers: ## make the matrix in docs/callers.md anew, as root, about 4 minutes
	$(MAKE) --no-print-directory e2e RUN='^TestCallers$$'
	sed -i '/^<!-- matrix -->/q' docs/callers.md
	(echo; sed 's/  */ /g' build/keep/callers.md) >>docs/callers.md

faults: build lab traffic ## inject faults into dumps and restores in the lab, as root (RUNS=200 SEED= ONLY= WORLDS=4)
	rm -rf build/dest
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/build/dest PREFIX=/usr/local >/dev/null
	CGO_ENABLED=0 $(GO) build -trimpath -o build/faults ./e2e/faults
	gcc -O2 -Wall -static -o build/faults-step e2e/faults/testdata/step.c
	build/faults -lab $(LAB) -build build $(if $(RUNS),-runs $(RUNS)) $(if $(SEED),-seed $(SEED)) \
		$(if $(WORLDS),-worlds $(WORLDS)) $(if $(ONLY),-only '$(ONLY)')

soak: export NETFREEZE_SOAK ?= 200
soak: ## hold, thaw, end and restore 200 times, and see that nothing leaks (NETFREEZE_SOAK=200)
	$(MAKE) --no-print-directory e2e RUN=TestSoak

# Go minimizes every input that covers something new for up to a minute, unless told
# otherwise, and at the end of the time it can fail with nothing but "context deadline
# exceeded", without an input that fails. One that does is kept in testdata/fuzz of its
# package.
fuzz: ## fuzz every target, each for a minute, as root (FUZZTIME=60s, FUZZ=Stream selects)
	@mkdir -p build
	$(GO) test -list '^Fuzz.*$(FUZZ)' $(PACKAGES) >build/fuzz.list
	@awk '/^Fuzz/ { names[++n] = $$1 } $$1 == "ok" { while (n) print $$2, names[n--] }' build/fuzz.list >build/fuzz.targets
	@test -s build/fuzz.targets || { echo "no fuzz target matches FUZZ=$(FUZZ)"; exit 1; }
	@failed=; while read -r package target; do \
		echo "$$package $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(or $(FUZZTIME),60s) -fuzzminimizetime 10x -parallel $$(nproc) "$$package" \
			</dev/null 2>&1 | tee build/fuzz.out; \
		grep -q '^ok' build/fuzz.out || \
			{ grep -qx ' *context deadline exceeded' build/fuzz.out && ! grep -q 'Failing input' build/fuzz.out; } || \
			failed="$$failed $$target"; \
	done <build/fuzz.targets; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

demo: deps build lab traffic ## show a connection surviving checkpoint and restore, and one that does not (as root)
	rm -rf build/dest
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/build/dest PREFIX=/usr/local >/dev/null
	CGO_ENABLED=0 $(GO) build -trimpath -o build/demo ./testdata/demo
	$(LAB) run --share $(CURDIR)/build:/opt/build -- /opt/build/demo

BENCH_C = empty:empty-c caller:caller load:load stamp:stamp

bench: deps build lab ## measure in the lab, as root, about 10 minutes; writes bench/README.md (BENCH=--help shows options)
	rm -rf build/dest && mkdir -p build/bench
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/build/dest PREFIX=/usr/local >/dev/null
	$(GOBUILD) -o build/bench/bench ./bench
	$(GOBUILD) -o build/bench/empty-go ./bench/testdata/empty
	for p in $(BENCH_C); do gcc -O2 -Wall -static -o build/bench/$${p#*:} bench/testdata/$${p%:*}.c || exit 1; done
	install -m 0755 bench/testdata/freeze.sh build/bench/
	$(LAB) run --share $(CURDIR)/build:/opt/build --share $(CURDIR)/bench:/opt/results:rw -- \
		/opt/build/bench/bench -results /opt/results $(BENCH)
