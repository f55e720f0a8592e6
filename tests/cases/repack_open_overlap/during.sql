-- @quick writer
INSERT INTO t SELECT i, 2 FROM generate_series(1001, 1400) i;
UPDATE t SET v = 5 WHERE id = 3;
-- @young writer
UPDATE t SET v = 6 WHERE id = 4;
COMMIT;
-- @quick writer
INSERT INTO t SELECT i, 3 FROM generate_series(1401, 1500) i;
DELETE FROM t WHERE id = 5;
-- @old writer
UPDATE t SET v = 7 WHERE id = 6;
COMMIT;
-- @quick writer
UPDATE t SET v = v + 1 WHERE id IN (3, 4, 6, 1500, 2000);
