-- State of repacks, in the database that holds the tables.
CREATE TABLE IF NOT EXISTS repcloud.repack (
    table_oid      oid         PRIMARY KEY, -- of the table when the repack began
    schema_name    text        NOT NULL,
    table_name     text        NOT NULL,
    shadow_oid     oid         NOT NULL DEFAULT 0,
    slot           text        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('planned', 'shadow_ready', 'rows_copied', 'indexes_built',
                                   'caught_up', 'verified', 'swapped', 'cleaned', 'abandoned')),
    -- Made by `prepare`: `repack` and `swap` go on from it.
    prepared       boolean     NOT NULL DEFAULT false,
    -- The slot was made here, rows were being copied under its snapshot; 0/0: not begun.
    copied_at_lsn  pg_lsn      NOT NULL DEFAULT '0/0',
    -- Definitions of the table and of all that hangs on it when the repack began.
    fingerprint    text        NOT NULL,
    -- What is left to do after the swap, in order.
    after          text[]      NOT NULL DEFAULT '{}',
    -- What a person asks of the process that works on it: swap, pause, resume, stop, yield (this table), yield all, throttle …
    request        text,
    rows_copied    bigint      NOT NULL DEFAULT 0,
    rows_total     bigint      NOT NULL DEFAULT 0,
    bytes_before   bigint      NOT NULL DEFAULT 0,
    bytes_after    bigint      NOT NULL DEFAULT 0,
    changes        bigint      NOT NULL DEFAULT 0,
    attempt        integer     NOT NULL DEFAULT 0,
    blocked_by     integer[]   NOT NULL DEFAULT '{}',
    throttled_by   text,
    lock_ms        double precision NOT NULL DEFAULT 0,
    error          text,
    -- Our publications as they were when the slot was made; whatever somebody changes in them shows.
    published      text,
    -- The transaction that wrote "rows copied": a snapshot from before it does not see the rows of the copy.
    copied_xid     xid8,
    -- What is to be different in the new table (--order-by and the like), as JSON.
    rebuild        text        NOT NULL DEFAULT '',
    -- Seconds of the copy, those in which it rested left out.
    copy_seconds   double precision NOT NULL DEFAULT 0,
    -- Rows that differed when they were compared last, and no comparison of all rows has found none since.
    differences    bigint      NOT NULL DEFAULT 0,
    started_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
