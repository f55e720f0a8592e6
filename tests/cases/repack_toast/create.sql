CREATE TABLE t (id int PRIMARY KEY, v int, big text);
ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, 1, repeat(i::text, 5000) FROM generate_series(1, 50) i;
