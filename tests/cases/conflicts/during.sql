UPDATE gone SET v = 'before' WHERE id = 1;
BEGIN;
UPDATE gone SET v = 'first half' WHERE id = 2;
UPDATE gone SET v = 'top secret' WHERE id = 3;
COMMIT;
UPDATE gone SET v = 'after' WHERE id = 4;
