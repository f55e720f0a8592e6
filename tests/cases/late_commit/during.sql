-- @early postgres
BEGIN;
SAVEPOINT s;
UPDATE t SET v = 'early' WHERE id = 1;
INSERT INTO u VALUES (101, 'early');
RELEASE s;
-- @late postgres
UPDATE t SET v = 'late' WHERE id = 2;
UPDATE u SET v = 'late' WHERE id = 2;
-- @until SELECT count(*) = 2 FROM (SELECT v FROM t UNION ALL SELECT v FROM u) q WHERE v = 'late'
-- @late postgres
UPDATE t SET v = 'later' WHERE id = 3;
-- @until SELECT v = 'later' FROM t WHERE id = 3
-- @early postgres
SAVEPOINT s;
DELETE FROM t WHERE id = 4;
ROLLBACK TO s;
UPDATE u SET v = 'early' WHERE id = 5;
COMMIT;
-- @late postgres
UPDATE t SET v = v || ', then late' WHERE id = 1;
