#!/bin/bash
# Records what a real server's pgoutput sends, one message in hexadecimal a line, for the decoder's tests.
#   record.sh BINDIR OUTDIR      (run as a user that may start servers: not root)
# BINDIR holds initdb and pg_ctl of one PostgreSQL version; psql comes from PATH. Files are named by version.
set -euo pipefail
bin=$1 out=$2
work=$(mktemp -d)
cleanup() { "$bin/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null 2>&1 || true; rm -rf "$work"; }
trap cleanup EXIT
"$bin/initdb" -D "$work/data" -U postgres -A trust -E UTF8 --locale=C -N >/dev/null
cat >>"$work/data/postgresql.conf" <<CONF
wal_level = logical
listen_addresses = ''
unix_socket_directories = '$work'
logical_decoding_work_mem = '64kB'
max_prepared_transactions = 10
fsync = off
autovacuum = off
CONF
"$bin/pg_ctl" -D "$work/data" -w -l "$work/log" start >/dev/null
run() { psql -XqAt -v ON_ERROR_STOP=1 -h "$work" -U postgres "$@"; }
run -d postgres -c "create database g"
run -d g -f "$(dirname "$0")/schema.sql"
major=$(run -d g -c "select current_setting('server_version_num')::int / 10000")

# record NAME TWO_PHASE HISTORY OPTION...: the messages of one history under the given plugin options.
record() {
    local name=$1 two_phase=$2 history=$3; shift 3
    run -d g -c "truncate prepared, streamed" # a history may be recorded twice
    run -d g -c "select pg_create_logical_replication_slot('s', 'pgoutput', false, $two_phase)" >/dev/null
    run -d g -f "$(dirname "$0")/$history"
    { echo "# PostgreSQL $major, $history, $*"
      run -d g -c "select encode(data, 'hex') from pg_logical_slot_peek_binary_changes('s', null, null,
        'publication_names', 'p', 'messages', 'true'$(printf ", '%s', '%s'" $(tr '=' ' ' <<<"$*")))"
    } > "$out/pg$major-$name.hex"
    run -d g -c "select pg_drop_replication_slot('s')" >/dev/null
}

record v1 false history.sql proto_version=1
record v2-streaming false streamed.sql proto_version=2 streaming=on
if [ "$major" -ge 15 ]; then
    record v3-two-phase true two_phase.sql proto_version=3 streaming=on two_phase=on
fi
if [ "$major" -ge 16 ]; then
    record v4-parallel true two_phase.sql proto_version=4 streaming=parallel two_phase=on
fi
