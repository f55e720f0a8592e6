-- @one writer
UPDATE t SET id = id + 10000 WHERE id <= 100;
INSERT INTO t VALUES (1, 5);
BEGIN;
UPDATE t SET id = 20000 WHERE id = 200;
UPDATE t SET id = 200, v = 7 WHERE id = 201;
UPDATE t SET id = 201, v = 8 WHERE id = 20000;
COMMIT;
