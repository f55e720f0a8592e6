UPDATE t SET m = 'ok' WHERE id = 1;
ALTER TYPE mood ADD VALUE 'elated' BEFORE 'sad';
BEGIN;
UPDATE t SET v = 'same transaction' WHERE id = 2;
UPDATE t SET m = 'elated' WHERE id = 1;
COMMIT;
INSERT INTO t VALUES (3, 'elated', 'c');
