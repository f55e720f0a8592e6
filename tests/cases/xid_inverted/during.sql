-- @low postgres
BEGIN;
INSERT INTO other VALUES (1);
-- @high postgres
UPDATE t SET v = 'high' WHERE id IN (1, 2);
INSERT INTO t VALUES (101, 'high');
DELETE FROM t WHERE id = 3;
UPDATE t SET id = 104 WHERE id = 4;
-- @low postgres
UPDATE t SET v = v || ', low' WHERE id IN (1, 101);
INSERT INTO child VALUES (1, 101);
INSERT INTO t VALUES (3, 'low'), (4, 'low');
DELETE FROM t WHERE id = 2;
COMMIT;
