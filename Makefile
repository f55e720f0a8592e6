# Everything a newcomer and a build server need. It works on a bare Debian with a Rust toolchain, as root or not:
# what is missing is installed, and said.

TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help build demo test soak bench bench-peers clean

help: ## Lists what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The release binary, target/release/repcloud
	@scripts/install-needs.sh build
	cargo build --release --locked

demo: ## Two private servers, load, a stream, a crash, a comparison: under two minutes after the build
	@scripts/install-needs.sh build servers
	cargo build --release --locked
	$(TARGET)/release/repcloud demo

test: ## Format, lints and all tests at small size; FORCE=1 runs them although nothing has changed
	@scripts/install-needs.sh build servers
	@FORCE="$(FORCE)" scripts/test.sh

soak: ## The scaled tests at full size: many seeds, many kills, big tables
	@scripts/install-needs.sh build servers
	@scripts/soak.sh

bench: ## Benchmarks with criterion; reports in target/criterion
	@scripts/install-needs.sh build servers
	cargo bench --locked

bench-peers: ## Side by side with pg_recvlogical and a subscription, into benches/README.md; ARGS=--quick for a trial
	@scripts/install-needs.sh build servers
	cargo bench --locked --bench peers -- $(ARGS)

clean: ## Removes what was built
	cargo clean
