-- @first writer
BEGIN;
INSERT INTO t VALUES (1001, 0);
-- @second writer
UPDATE t SET v = 1 WHERE id = 7;
-- @first writer
UPDATE t SET v = 2 WHERE id = 7;
COMMIT;
