-- @one writer
INSERT INTO t (v) VALUES (2);
UPDATE t SET v = 3 WHERE id = 1;
DELETE FROM t WHERE id = 2;
