INSERT INTO to_plain VALUES (1000, 'eu', 'new'), (1001, 'us', 'new'), (1002, 'mars', 'new');
UPDATE to_plain SET v = 'changed' WHERE id % 10 = 0;
DELETE FROM to_plain WHERE id % 7 = 0;
-- Rows move to another partition: by key, and by key of a nested one.
UPDATE to_plain SET region = 'us' WHERE region = 'eu' AND id < 50;
UPDATE to_plain SET id = id + 200 WHERE region = 'asia' AND id < 60;
BEGIN;
UPDATE to_plain SET region = 'asia' WHERE id = 1000;
UPDATE to_plain SET region = 'eu', v = 'back' WHERE id = 1000;
COMMIT;
INSERT INTO to_parts VALUES (100, 'new');
UPDATE to_parts SET id = id + 20 WHERE id < 5;
UPDATE to_parts SET v = upper(v) WHERE id > 12;
DELETE FROM to_parts WHERE id = 13;
UPDATE emptied SET v = 'late' WHERE id = 1;
TRUNCATE emptied;
INSERT INTO emptied VALUES (1, 'after'), (11, 'after');
