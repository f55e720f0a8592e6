INSERT INTO made_by_us (v) VALUES ('new');
UPDATE made_by_us SET v = 'changed' WHERE id = 1;
INSERT INTO always (v, doc) VALUES ('new', 'short'), ('newer', long(100));
UPDATE always SET v = 'changed' WHERE id = 1;
DELETE FROM always WHERE id = 2;
-- The whole row is sent, and then not.
UPDATE always SET id = 103, doc = 'short' WHERE id = 3;
UPDATE always SET id = 104 WHERE id = 4;
UPDATE always SET id = 105, v = NULL WHERE id = 5;
BEGIN;
UPDATE always SET id = -6 WHERE id = 6;
UPDATE always SET id = 6 WHERE id = 7;
UPDATE always SET id = 7 WHERE id = -6;
COMMIT;
INSERT INTO lone VALUES (11);
UPDATE lone SET id = id WHERE id = 1;
UPDATE lone SET id = 12 WHERE id = 2;
DELETE FROM lone WHERE id = 3;
