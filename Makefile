# Everything a newcomer and a build server need. It works on a bare Debian with a Rust toolchain, as root or not:
# what is missing is installed, and said.

TARGET := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help build demo test soak bench bench-peers bench-repack clean

help: ## Lists what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The release binary, target/release/repcloud
	@scripts/install-needs.sh build
	cargo build --release --locked

demo: ## Two private servers, load, a stream, a crash, a comparison, a repack under load: under two minutes after the build
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

bench-peers: ## Side by side with pg_recvlogical, a subscription and mimeo, into benches/README.md; ARGS=--quick for a trial
	@scripts/install-needs.sh build servers stream-peers
	@scripts/old-repcloud.sh
	REPCLOUD_BENCH_OLD=$(abspath $(TARGET))/old-repcloud/bin/rpcl cargo bench --locked --bench peers -- $(ARGS)

bench-repack: ## Repack beside VACUUM FULL, pg_repack and the old repcloud, into benches/README.md; ARGS=--quick for a trial
	@scripts/install-needs.sh build servers repack-peers
	@scripts/old-repcloud.sh
	REPCLOUD_BENCH_OLD=$(abspath $(TARGET))/old-repcloud/bin/rpcl cargo bench --locked --bench repack -- $(ARGS)

clean: ## Removes what was built
	cargo clean
