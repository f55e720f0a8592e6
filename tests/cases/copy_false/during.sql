UPDATE t SET v = 'changed' WHERE id = 1;
UPDATE t SET v = 'changed' WHERE id = 2;
DELETE FROM t WHERE id = 3;
INSERT INTO t VALUES (100, 'in the way');
INSERT INTO t VALUES (11, 'new');
UPDATE t SET v = 'changed' WHERE id = 11;
