-- State of repcloud in a target database. Version 1; the later ones are made from it by schema_<version>.sql.
CREATE SCHEMA IF NOT EXISTS repcloud;

CREATE TABLE repcloud.version (version integer NOT NULL);
INSERT INTO repcloud.version VALUES (1);

-- One row a stream: how far it has come. Updated in the transaction of the rows it speaks of.
CREATE TABLE repcloud.checkpoint (
    source       text        NOT NULL,
    target       text        NOT NULL,
    slot         text        NOT NULL,
    phase        text        NOT NULL CHECK (phase IN ('creating', 'ready')),
    system_id    text        NOT NULL,
    timeline     bigint      NOT NULL,
    generation   bigint      NOT NULL DEFAULT 0,
    applied_lsn  pg_lsn      NOT NULL DEFAULT '0/0',
    commit_time  timestamptz,
    changes      bigint      NOT NULL DEFAULT 0,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, target)
) WITH (fillfactor = 20);

-- Written by commits that wait for the disk; a row of its own, so that they never wait for the applier.
CREATE TABLE repcloud.durability (
    source     text        NOT NULL,
    target     text        NOT NULL,
    flushed_at timestamptz NOT NULL DEFAULT now(),
    -- Somebody (verify) waits for the position to reach this one.
    wanted_lsn pg_lsn      NOT NULL DEFAULT '0/0',
    PRIMARY KEY (source, target)
) WITH (fillfactor = 20);

-- One row a target table of a stream.
CREATE TABLE repcloud.table_state (
    source        text        NOT NULL,
    target        text        NOT NULL,
    target_table  text        NOT NULL,
    source_table  text        NOT NULL,
    mode          text        NOT NULL,
    state         text        NOT NULL CHECK (state IN ('copying', 'streaming', 'needs_copy', 'failed')),
    copied_at_lsn pg_lsn      NOT NULL DEFAULT '0/0',
    made_by_us    boolean     NOT NULL DEFAULT false,
    known_columns jsonb,
    known_leaves  text[], -- of a partitioned source table, when the rows were copied
    rows_copied   bigint      NOT NULL DEFAULT 0,
    rows_total    bigint      NOT NULL DEFAULT 0,
    changes       bigint      NOT NULL DEFAULT 0,
    error         text,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, target, target_table)
);

-- Changes that met another row than they should have, and transactions left out by `skip`.
CREATE TABLE repcloud.conflict (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source       text        NOT NULL,
    target       text        NOT NULL,
    target_table text        NOT NULL,
    commit_lsn   pg_lsn      NOT NULL,
    commit_time  timestamptz NOT NULL,
    xid          bigint      NOT NULL,
    operation    text        NOT NULL,
    resolution   text        NOT NULL CHECK (resolution IN ('stopped', 'logged', 'overwritten', 'skipped')),
    reason       text        NOT NULL,
    old_row      jsonb,
    new_row      jsonb,
    recorded_at  timestamptz NOT NULL DEFAULT now()
);

-- Transactions to leave out, by the start of their commit record.
CREATE TABLE repcloud.skip (
    source       text        NOT NULL,
    target       text        NOT NULL,
    commit_lsn   pg_lsn      NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    skipped_at   timestamptz,
    PRIMARY KEY (source, target, commit_lsn)
);
