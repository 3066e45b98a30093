# The front door without Nix. `make help` lists what there is; docs/assets.md says what is fetched.

ARCH ?= $(shell uname -m)
CMD ?=
CARGO := setup/cargo
CACHE := $(shell $(foreach name,VMTEST_CACHE XDG_CACHE_HOME HOME,$(name)='$($(name))') . setup/lib/cache.sh && echo "$$cache")

# A manifest that was given (by Nix, for example) is taken as it is; else setup/assets makes one.
ifdef VMTEST_ASSETS
ASSETS := @:
else
ASSETS := @setup/assets
export VMTEST_ASSETS := $(CACHE)/assets.json
endif

.PHONY: help run shell test test-tools lint features build assets kernels kernels-test bench bench-boot clean
.DEFAULT_GOAL := help

help: ## this list
	@echo 'usage: make TARGET [ARCH=amd64|i386|arm64|arm|riscv64] [CMD="uname -a"]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

run: ## boot ARCH (default: this machine's) and run CMD in it; without CMD, say what was found
	$(ASSETS) $(ARCH)
	@$(CARGO) build --quiet --locked --release --features cli
	@target/release/vmtest --arch $(ARCH) $(if $(CMD),-- $(CMD))

shell: ## an interactive shell in a guest of ARCH
	$(ASSETS) $(ARCH)
	@$(CARGO) build --quiet --locked --release --features cli
	@target/release/vmtest shell --arch $(ARCH)

test: test-tools lint features ## formatting, lints, tests, real boots of all five architectures
	$(ASSETS) programs firmware
	$(CARGO) test --locked --workspace

test-tools: ## what the tests compare with: installed as root, else named
	@setup/test-tools

# Debian's Rust comes without them; rustup's has both.
lint: ## formatting and lints
	@if $(CARGO) fmt --version >/dev/null 2>&1; then set -x; $(CARGO) fmt --all --check; \
	else echo 'make: no cargo fmt here: formatting is not checked' >&2; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then set -x; $(CARGO) clippy --locked --workspace --all-targets -- -D warnings; \
	else echo 'make: no cargo clippy here: lints are not checked' >&2; fi
	@if command -v shellcheck >/dev/null; then set -x; shellcheck setup/assets setup/cargo setup/go setup/kernels setup/test-tools setup/lib/*.sh nix/kernel/build nix/fetch-sources .ci/*; \
	else echo 'make: no shellcheck here: shell scripts are not checked' >&2; fi

# Each by itself, so that none needs another in secret.
FEATURES := $(shell sed -n '/^\[features\]/,/^$$/s/^\([a-z][a-z-]*\) = .*/\1/p' Cargo.toml)

features: ## the library with each of its features alone, and with none
	$(foreach feature,$(FEATURES),$(CARGO) check --quiet --locked --lib --no-default-features --features $(feature) && )true

build: ## the program: target/release/vmtest
	$(CARGO) build --locked --release --features cli

assets: ## QEMU, kernels, shells and guest programs of all five architectures, and their manifest
	$(ASSETS)

# ARCH counts only when somebody has said it.
KERNELS = $(if $(filter environment command,$(firstword $(origin ARCH))),$(ARCH)) $(if $(GCOV),gcov)

kernels: ## build our own guest kernels, of ARCH or of all five; GCOV=1: those that count executed lines
	@setup/kernels $(KERNELS)

kernels-test: ## check the configuration of all our kernels, build and boot the gcov kernels and what else is built
	@setup/kernels gcov amd64 riscv64
	@setup/kernels --check
	$(ASSETS) amd64 riscv64
	$(CARGO) test --locked --test it -- --include-ignored kernels:: coverage_run::gcov::

bench: ## measure what vmtest adds to QEMU's own time
	$(ASSETS)
	$(CARGO) bench --locked --workspace

bench-boot: ## measure boots, saved guests and pools against each other
	$(ASSETS)
	$(CARGO) bench --locked --features cli --bench warm
	$(CARGO) bench --locked --bench pool

clean: ## remove what was built; what was fetched stays in the cache
	rm -rf target $(CACHE)/build
