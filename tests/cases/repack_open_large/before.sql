-- @old writer
BEGIN;
UPDATE t SET v = v + 1;
INSERT INTO t SELECT i, 2 FROM generate_series(1001, 3500) i;
