CREATE TABLE t (id bigserial PRIMARY KEY, v int NOT NULL);
INSERT INTO t (v) SELECT 1 FROM generate_series(1, 500) i;
