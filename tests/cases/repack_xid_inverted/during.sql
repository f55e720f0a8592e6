-- @low writer
BEGIN;
INSERT INTO other VALUES (1);
-- @high writer
UPDATE t SET v = 'high' WHERE id IN (1, 2);
INSERT INTO t VALUES (1001, 'high');
DELETE FROM t WHERE id = 3;
UPDATE t SET id = 1004 WHERE id = 4;
-- @low writer
UPDATE t SET v = v || ', low' WHERE id IN (1, 1001);
INSERT INTO t VALUES (3, 'low'), (4, 'low');
DELETE FROM t WHERE id = 2;
COMMIT;
