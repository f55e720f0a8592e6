-- @one postgres
SET session_replication_role = replica;
INSERT INTO t VALUES (1001, 5);
UPDATE t SET v = 6 WHERE id = 3;
DELETE FROM t WHERE id = 4;
