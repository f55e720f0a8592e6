-- Version 4: target tables that `drop-table` took out, which a wildcard of the configuration passes over from then on.
CREATE TABLE repcloud.dropped (
    source       text        NOT NULL,
    target       text        NOT NULL,
    target_table text        NOT NULL,
    dropped_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, target, target_table)
);

INSERT INTO repcloud.version VALUES (4);
