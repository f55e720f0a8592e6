#!/usr/bin/env bash
# Installs the Python repcloud this project began from into target/old-repcloud, for `make bench-repack` and `make bench-peers` to measure.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
place=${CARGO_TARGET_DIR:-target}/old-repcloud
[ -x "$place/bin/rpcl" ] && exit 0
echo "Installing repcloud 0.1a1 from PyPI into $place."
python3 -m venv "$place"
# It uses pkg_resources, which later setuptools have no more.
"$place/bin/pip" install --quiet --disable-pip-version-check 'repcloud==0.1a1' 'setuptools<81'
