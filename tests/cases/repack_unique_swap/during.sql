-- @one writer
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
UPDATE t SET code = 2 WHERE id = 1;
UPDATE t SET code = 1 WHERE id = 2;
COMMIT;
BEGIN;
UPDATE t SET name = 'x' WHERE id = 1;
UPDATE t SET name = 'n1' WHERE id = 2;
UPDATE t SET name = 'n2' WHERE id = 1;
COMMIT;
UPDATE t SET code = 301 - code;
