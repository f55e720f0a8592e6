-- Plain; the key moves on, and comes back.
UPDATE small SET id = id + 100 WHERE id <= 3;
UPDATE small SET id = id + 100, v = v || '!' WHERE id = 101;
UPDATE small SET id = 1 WHERE id = 201;
-- Two rows exchange their keys.
BEGIN;
UPDATE small SET id = -10 WHERE id = 10;
UPDATE small SET id = 10 WHERE id = 11;
UPDATE small SET id = 11 WHERE id = -10;
COMMIT;
-- Everybody moves up by one.
BEGIN;
UPDATE small SET id = -id - 1 WHERE id BETWEEN 12 AND 20;
UPDATE small SET id = -id WHERE id < 0;
COMMIT;
-- The key of a row that came a moment ago, and of one that goes at once.
BEGIN;
INSERT INTO small VALUES (500, 'new');
UPDATE small SET id = 501 WHERE id = 500;
UPDATE small SET id = 502 WHERE id = 4;
DELETE FROM small WHERE id = 502;
INSERT INTO small VALUES (4, 'again');
COMMIT;
-- The long value is not sent with these.
UPDATE big SET id = id + 100 WHERE id <= 5;
UPDATE big SET id = id + 100, v = 'changed' WHERE id IN (101, 102);
BEGIN;
UPDATE big SET v = 'before' WHERE id = 6;
UPDATE big SET id = 600 WHERE id = 6;
UPDATE big SET v = 'after' WHERE id = 600;
COMMIT;
BEGIN;
UPDATE big SET id = -7 WHERE id = 7;
UPDATE big SET id = 7 WHERE id = 8;
UPDATE big SET id = 8 WHERE id = -7;
COMMIT;
BEGIN;
UPDATE big SET doc = long(909), v = 'long and key' WHERE id = 9;
UPDATE big SET id = 900 WHERE id = 9;
COMMIT;
BEGIN;
INSERT INTO big VALUES (1000, 'new', long(1000));
UPDATE big SET id = 1001 WHERE id = 1000;
COMMIT;
UPDATE pair SET a = a + 10 WHERE a = 1;
UPDATE pair SET b = b || 'x', v = NULL WHERE a = 2;
-- Extra columns on the target stay with their row.
UPDATE extra SET id = id + 100 WHERE id <= 3;
BEGIN;
UPDATE extra SET id = -10 WHERE id = 10;
UPDATE extra SET id = 10 WHERE id = 11;
UPDATE extra SET id = 11 WHERE id = -10;
COMMIT;
UPDATE full_one SET id = id + 100 WHERE id <= 5;
UPDATE full_one SET id = id + 100, v = NULL WHERE id IN (101, 102);
BEGIN;
UPDATE full_one SET id = -7 WHERE id = 7;
UPDATE full_one SET id = 7 WHERE id = 8;
UPDATE full_one SET id = 8 WHERE id = -7;
COMMIT;
