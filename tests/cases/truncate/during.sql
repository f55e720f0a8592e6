BEGIN;
INSERT INTO plain VALUES (50, 'goes');
TRUNCATE plain;
INSERT INTO plain VALUES (51, 'stays');
COMMIT;
UPDATE plain SET v = 'stays' WHERE id = 51;
TRUNCATE counted RESTART IDENTITY;
INSERT INTO counted (v) VALUES ('first again');
TRUNCATE one, two;
INSERT INTO one VALUES (1);
TRUNCATE parent CASCADE;
INSERT INTO parent VALUES (5);
INSERT INTO child VALUES (5, 5);
-- A TRUNCATE that did not happen.
BEGIN;
TRUNCATE parent, child;
ROLLBACK;
TRUNCATE other;
