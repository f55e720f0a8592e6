-- @one writer
UPDATE above SET v = v + 1 WHERE id % 10 = 0;
DELETE FROM above WHERE id BETWEEN 41 AND 49;
UPDATE t SET v = 50 WHERE id IN (1, 9001);
INSERT INTO t VALUES (600, 3);
