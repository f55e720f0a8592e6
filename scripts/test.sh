#!/usr/bin/env bash
# Format, lints and all tests at small size. When the same files have passed before with the same tools, says so and
# ends: FORCE=1 runs everything again.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
stamp=$target/tests-passed

# Everything the outcome depends on: every file that is or would be versioned, the tools, the settings.
fingerprint() {
    git ls-files --cached --others --exclude-standard -z | xargs -0 sha256sum 2>&1 || true
    rustc -vV
    cargo nextest --version 2>/dev/null || true
    /usr/lib/postgresql/*/bin/postgres --version 2>/dev/null || true
    env | grep -E '^(REPCLOUD_|RUST|CARGO_|PROPTEST_)' | sort || true
}

now=
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    now=$(fingerprint | sha256sum)
fi
if [ -z "${FORCE:-}" ] && [ -n "$now" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ]; then
    echo "Nothing has changed since the tests passed; FORCE=1 runs them again."
    exit 0
fi
rm -f "$stamp"

set -x
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
cargo test --locked --doc --quiet
# Last, so that its summary ends the output.
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked
else
    # Two tests at a time: each has two servers of its own.
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-2} cargo test --locked --lib --bins --tests
fi
{ set +x; } 2>/dev/null

mkdir -p "$target"
if [ -n "$now" ]; then
    printf '%s\n' "$now" >"$stamp"
fi
