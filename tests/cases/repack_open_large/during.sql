-- @old writer
INSERT INTO t SELECT i, 3 FROM generate_series(3501, 6010) i;
UPDATE t SET v = v + 10 WHERE id > 1000;
COMMIT;
-- @new writer
UPDATE t SET v = v + 100 WHERE id > 6000;
