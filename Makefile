# make lists what there is to make.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# What the demo and the tests need beside Go, as Debian packages them.
DEBIAN_PACKAGES := openssh-server openssh-client openssh-sftp-server sudo ansible-core \
	iproute2 util-linux procps dropbear-bin busybox asciinema systemd shellcheck gcc libc6-dev git ca-certificates \
	ansible rsync sshfs putty-tools python3-paramiko

# Linters and the test runner are run at these versions by "go run", so they
# never enter go.mod.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
GOTESTSUM   := gotest.tools/gotestsum@v1.13.0

FUZZTIME ?= 10s
TESTFLAGS ?= -race -timeout 20m
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help
help: ## list what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/fleetca and bin/fleetjump
	@mkdir -p bin
	go build -trimpath -o bin/ ./cmd/...

.PHONY: demo
demo: deps build ## certify a fleet of real sshd hosts on this machine and record sessions on it, step by step
	go run ./testenv/demo bin/fleetca

.PHONY: test
test: deps ## run all tests against real sshd, ssh, sudo and Ansible, with the race detector
	@mkdir -p .cache
	go run $(GOTESTSUM) --format pkgname --jsonfile .cache/test.json -- $(TESTFLAGS) ./...
	@if [ -n "$$CI" ] && grep -E '"Action":"skip".*"Test":' .cache/test.json; then \
		echo "CI skips no test; the ones above were skipped" >&2; exit 1; fi

.PHONY: lint
lint: deps ## go vet, staticcheck, gofumpt, shell scripts
	go vet ./...
	go run $(STATICCHECK) ./...
	@unformatted=$$(git ls-files '*.go' | xargs go run $(GOFUMPT) -l); \
	if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi
	shellcheck .ci/run

.PHONY: bench
bench: deps build ## provisioning beside Ansible and beside the bare connections, as ratios
	go run ./testenv/bench bin/fleetca

.PHONY: bench-jump
bench-jump: deps build ## sessions and downloads through fleetjump beside ssh and ssh -J, as ratios
	go run ./testenv/bench -jump bin/fleetca

.PHONY: fuzz
fuzz: deps ## run each fuzz target for FUZZTIME (10s)
	@mkdir -p .cache; set -e -o pipefail; for package in $$(go list ./...); do \
		listed=$$(go test -list '^Fuzz' $$package); \
		for target in $$(grep '^Fuzz' <<<"$$listed" || true); do \
			echo "== $$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package 2>&1 | tee .cache/fuzz.log || \
				$(call only_out_of_time,.cache/fuzz.log); \
		done; \
	done

# The fuzzing engine sometimes fails with nothing but the end of its own time
# (golang.org/issue/48591); a finding always names the input that it wrote down.
only_out_of_time = { grep -q '^    context deadline exceeded$$' $(1) && ! grep -q 'Failing input' $(1); }

.PHONY: deps
deps: ## install what demo and tests need (as root), or print the command that does
	@missing=; for package in $(DEBIAN_PACKAGES); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else \
		echo "run this once, then try again:" >&2; \
		echo "  sudo apt-get install -y --no-install-recommends$$missing" >&2; exit 1; \
	fi

.PHONY: clean
clean: ## remove what make made
	rm -rf bin .cache
