-- Version 2: tables that wait beside the stream.
ALTER TABLE repcloud.table_state DROP CONSTRAINT table_state_state_check;
ALTER TABLE repcloud.table_state
    ADD CONSTRAINT table_state_state_check CHECK (state IN ('copying', 'streaming', 'parked', 'needs_copy', 'failed')),
    ADD COLUMN parked_with    text, -- the table for which it waits, itself or one that foreign keys tie to it
    ADD COLUMN parked_changes bigint NOT NULL DEFAULT 0,
    ADD COLUMN parked_bytes   bigint NOT NULL DEFAULT 0;

-- Changes of tables that wait, in the order of the source. Written in the transaction that moves the position past them.
-- A row image is a JSON array in the order of the relation's columns: text, null, false for a value that was not sent,
-- {"hex": …} for bytes that are not UTF-8.
CREATE TABLE repcloud.parked (
    seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source       text        NOT NULL,
    target       text        NOT NULL,
    target_table text        NOT NULL,
    commit_lsn   pg_lsn      NOT NULL,
    commit_time  timestamptz NOT NULL,
    xid          bigint      NOT NULL,
    -- 'relation' describes the source table for the changes that follow; it stays until the table streams again.
    operation    text        NOT NULL CHECK (operation IN ('relation', 'insert', 'update', 'delete', 'truncate')),
    detail       json,
    old_kind     text        CHECK (old_kind IN ('key', 'full')),
    old_row      json,
    new_row      json
);

INSERT INTO repcloud.version VALUES (2);
