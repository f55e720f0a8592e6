-- Came and went within one transaction: a stamped row is left.
BEGIN;
INSERT INTO t VALUES (100, 1000, 'came and went', NULL);
DELETE FROM t WHERE id = 100;
COMMIT;
-- Changed and deleted: the last image is kept, and stamped.
BEGIN;
UPDATE t SET v = 'last image' WHERE id = 1;
DELETE FROM t WHERE id = 1;
COMMIT;
DELETE FROM t WHERE id = 2;
-- The same key again: alive.
INSERT INTO t VALUES (2, 20, 'again', NULL);
UPDATE t SET v = 'updated after revival' WHERE id = 2;
BEGIN;
DELETE FROM t WHERE id = 3;
INSERT INTO t VALUES (3, 30, 'at once again', 'd');
COMMIT;
-- Deleted twice over time: the later stamp stays.
DELETE FROM t WHERE id = 4;
INSERT INTO t VALUES (4, 40, 'second life', NULL);
DELETE FROM t WHERE id = 4;
-- A key change leaves the old key stamped; the long value goes along.
UPDATE t SET id = 105 WHERE id = 5;
UPDATE t SET id = 106, v = 'moved', doc = 'short' WHERE id = 6;
-- On to a key that was deleted before.
DELETE FROM t WHERE id = 7;
UPDATE t SET id = 7 WHERE id = 8;
-- There and back.
UPDATE t SET id = 109 WHERE id = 9;
UPDATE t SET id = 9 WHERE id = 109;
-- A unique value is free once its row is deleted.
DELETE FROM t WHERE id = 10;
INSERT INTO t VALUES (110, 100, 'took 100', NULL);
BEGIN;
DELETE FROM t WHERE id = 11;
UPDATE t SET k = 110 WHERE id = 12;
INSERT INTO t VALUES (112, 120, 'took 120', NULL);
COMMIT;
BEGIN;
UPDATE t SET k = -1 WHERE id = 13;
UPDATE t SET k = 130 WHERE id = 14;
UPDATE t SET k = 140 WHERE id = 13;
COMMIT;
UPDATE swapped SET k = 30 - k WHERE id IN (1, 2);
TRUNCATE emptied;
INSERT INTO emptied VALUES (2, 'back');
UPDATE by_full SET v = 'last image' WHERE id = 1;
DELETE FROM by_full WHERE id = 1;
UPDATE by_full SET id = 102 WHERE id = 2;
