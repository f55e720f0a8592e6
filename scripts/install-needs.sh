#!/usr/bin/env bash
# Installs what is missing on Debian and its relatives, and says what and why.
#
#   scripts/install-needs.sh [build] [servers] [repack-peers] [stream-peers]
#
# build:   a C compiler (the cryptography library has C and assembly parts)
# servers: PostgreSQL server programs of REPCLOUD_TEST_PG_MAJOR (15), its wal2json, and openssl (test certificates)
# repack-peers: pg_repack for that server, and what a Python environment for the old repcloud needs
# stream-peers: mimeo for that server, and the same environment
set -euo pipefail

major=${REPCLOUD_TEST_PG_MAJOR:-15}
packages=()
reasons=()

need() { # need PACKAGE REASON
    packages+=("$1")
    reasons+=("$2")
}

have_compiler() {
    command -v cc >/dev/null && echo '#include <stdlib.h>
        int main(void) { return 0; }' | cc -x c -c -o /dev/null - 2>/dev/null
}

have_servers() {
    local directory program
    local IFS=:
    for directory in ${REPCLOUD_PG_BIN:-} "${PG_HOME:-/usr/lib/postgresql}/$major/bin"; do
        [ -x "$directory/postgres" ] || continue
        case "$("$directory/postgres" --version)" in *"(PostgreSQL) $major"[.a-z]*) ;; *) continue ;; esac
        for program in initdb pg_ctl pg_resetwal psql pgbench pg_recvlogical; do
            [ -x "$directory/$program" ] || command -v "$program" >/dev/null || continue 2
        done
        return 0
    done
    return 1
}

have_pg_repack() {
    local directory
    local IFS=:
    for directory in ${REPCLOUD_PG_BIN:-} "${PG_HOME:-/usr/lib/postgresql}/$major/bin"; do
        [ -x "$directory/pg_repack" ] && return 0
    done
    return 1
}

have_mimeo() {
    local directory
    local IFS=:
    for directory in ${REPCLOUD_PG_BIN:-} "${PG_HOME:-/usr/lib/postgresql}/$major/bin"; do
        [ -e "$("$directory/pg_config" --sharedir 2>/dev/null)/extension/mimeo.control" ] && return 0
    done
    [ -e "/usr/share/postgresql/$major/extension/mimeo.control" ]
}

have_venv() {
    python3 -c 'import ensurepip' 2>/dev/null
}

for wanted in "$@"; do
    case $wanted in
        build)
            command -v cargo >/dev/null || {
                echo "cargo was not found: install a Rust toolchain, see https://rustup.rs" >&2
                exit 1
            }
            if ! have_compiler; then
                need gcc "a C compiler, for the cryptography library"
                need libc6-dev "headers for it"
            fi
            ;;
        servers)
            have_servers || need "postgresql-$major" "servers of our own for the demo, the tests and the benchmarks"
            # Debian's packages hold it; private programs of other versions go without, and the tests say so.
            if [ -z "${REPCLOUD_PG_BIN:-}" ] && [ ! -e "${PG_HOME:-/usr/lib/postgresql}/$major/lib/wal2json.so" ]; then
                need "postgresql-$major-wal2json" "the other output plugin that streams can be read from"
            fi
            command -v openssl >/dev/null || need openssl "certificates for the TLS tests"
            ;;
        repack-peers)
            have_pg_repack || need "postgresql-$major-repack" "pg_repack, to be measured beside us"
            have_venv || need python3-venv "an environment for the old repcloud"
            ;;
        stream-peers)
            have_mimeo || need "postgresql-$major-mimeo" "mimeo, to be measured beside us"
            have_venv || need python3-venv "an environment for the old repcloud"
            ;;
        *)
            echo "usage: $0 [build] [servers] [repack-peers] [stream-peers]" >&2
            exit 2
            ;;
    esac
done
[ ${#packages[@]} -gt 0 ] || exit 0

echo "These packages are missing:"
for index in "${!packages[@]}"; do
    echo "  ${packages[index]}: ${reasons[index]}"
done

by_hand() {
    echo "Install them as root and run make again:" >&2
    echo "  apt-get update && apt-get install ${packages[*]}" >&2
    exit 1
}

command -v apt-get >/dev/null || {
    echo "There is no apt-get here; install the like with your own package manager (PostgreSQL elsewhere: name the" >&2
    echo "directory of its programs in REPCLOUD_PG_BIN)." >&2
    exit 1
}
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "Installing needs root, and there is no sudo." >&2
        by_hand
    }
    as_root=(sudo)
fi
root() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "$@"; }
install() { root apt-get install -y -qq --no-install-recommends "$@" || by_hand; }
# Not by a pipe: with pipefail, a grep -q that has seen enough makes a failure of it.
candidate() { [[ $(apt-cache policy "$1" 2>/dev/null) == *"Candidate: "[0-9]* ]]; }

# A fresh image has no package lists at all.
for package in "${packages[@]}"; do
    if ! candidate "$package"; then
        echo "Reading the package lists (apt-get update)."
        root apt-get update -qq || by_hand
        break
    fi
done
for package in "${packages[@]}"; do
    candidate "$package" || {
        echo "$package is in none of this system's package lists. For PostgreSQL: add https://apt.postgresql.org," >&2
        echo "or test on what is there with REPCLOUD_TEST_PG_MAJOR, or name its programs in REPCLOUD_PG_BIN." >&2
        exit 1
    }
done

drop_in=/etc/postgresql-common/createcluster.d/repcloud.conf
case " ${packages[*]} " in *" postgresql-"*)
    # Debian's package would make a server called "main" and start it at once; we only want the programs. The setting
    # counts for this installation only and is taken back afterwards.
    echo "Installing without the server \"main\" that the package would make and start."
    install postgresql-common
    root mkdir -p "$(dirname "$drop_in")"
    echo "create_main_cluster = false" | root tee "$drop_in" >/dev/null
    trap 'root rm -f "$drop_in"' EXIT
    ;;
esac
echo "Installing ${packages[*]}."
install "${packages[@]}"
