#!/usr/bin/env bash
# The scaled tests (their names begin with `scaled_`) at full size.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export REPCLOUD_TEST_SIZE=full

set -x
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --profile soak -E 'test(/(^|::)scaled_/)'
else
    RUST_TEST_THREADS=1 cargo test --locked --tests scaled_
fi
