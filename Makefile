# make        what can be made
# make up     a personal cloud on this machine: cloudpal up
# make test   all that a change must pass, set-up included

PREFIX  ?= /usr/local
DESTDIR ?=
FUZZTIME ?= 30s

# Root is needed to run VMs, and so to test; not to build.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
# What a test that is run by sudo needs to find Go and its modules, without
# leaving root's files in a person's caches.
AS_ROOT := $(if $(ROOT),-exec "sudo -H env PATH=$(PATH) GOMODCACHE=$(shell go env GOMODCACHE) CLOUDPAL_MUST_RUN=1")

# Real VMs, whose boots and wakes are timed, and processes that are killed
# hundreds of times: one package alone, and not slowed down by the race detector.
SLOW = ./test/center/... ./test/compute/... ./test/core/... ./test/data/... ./test/network/... ./test/nested/... ./test/simulation/...
# What the race detector has only a part of, in test-fast: the whole takes too
# long with it.
WHOLE = ./compute/image

.NOTPARALLEL:
.PHONY: help up demo build setup setup-test test test-fast test-slow bench fuzz lint install uninstall clean

help: ## tell what can be made
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: setup build ## bring up a personal cloud on this machine; bin/cloudpal down ends it
	$(ROOT) bin/cloudpal up

demo: setup build ## show one microVM: a web server sleeps, and wakes when it is called
	CGO_ENABLED=0 go build -trimpath -o bin/demo ./test/demo
	$(ROOT) bin/demo

build: ## build bin/cloudpal and bin/vminit, both static, and bin/core, the image of pals' cores
	CGO_ENABLED=0 go build -trimpath -ldflags=-s -o bin/cloudpal ./cmd/cloudpal
	CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o bin/vminit ./cmd/vminit
	@if [ -d bin/kernel ]; then bin/cloudpal core-image bin/core; \
	else echo "no bin/core: it needs the guests' kernel, so make setup, then make build again"; fi

setup: ## install what running VMs needs, and fetch the guests' kernel into bin/kernel
	@scripts/setup

setup-test: setup ## and what the tests need
	@scripts/setup test

test: setup-test test-fast test-slow ## set up, and run every test; none may be skipped

test-fast: ## run the other tests, with the race detector
	CLOUDPAL_MUST_RUN=1 go test -race -shuffle=on -timeout 20m $(AS_ROOT) \
		$$(go list ./... | grep -vxF "$$(go list $(SLOW))")

test-slow: ## run the tests of whole hosts with real VMs, of whole images, and with kill -9
	CLOUDPAL_MUST_RUN=1 go test -shuffle=on -timeout 30m -p 1 $(AS_ROOT) $(WHOLE) $(SLOW)

bench: setup-test build ## measure every area beside a peer; tables, and test/out/bench-AREA.json
	go run $(AS_ROOT) ./test/bench

bench-%: setup-test build ## measure one area: make bench-compute
	go run $(AS_ROOT) ./test/bench $*

fuzz: ## fuzz each target for FUZZTIME (30s)
	@scripts/fuzz $(FUZZTIME)

lint: ## check form, imports and what tools find
	@scripts/lint

install: ## install to $(DESTDIR)$(PREFIX), after make build and make setup
	@scripts/install '$(DESTDIR)' '$(PREFIX)'

uninstall: ## remove what install put there; VMs, images and volumes stay
	@scripts/install --remove '$(DESTDIR)' '$(PREFIX)'

clean: ## remove what was built and fetched
	$(ROOT) rm -rf bin test/out .cache
