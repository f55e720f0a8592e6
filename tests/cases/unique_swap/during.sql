-- Two rows exchange a value in one statement.
UPDATE direct SET k = 30 - k WHERE id IN (1, 2);
-- The same, only possible through a value in between.
BEGIN;
UPDATE plain SET k = -1 WHERE id = 1;
UPDATE plain SET k = 10 WHERE id = 2;
UPDATE plain SET k = 20 WHERE id = 1;
COMMIT;
-- Over several transactions.
UPDATE plain SET k = NULL WHERE id = 3;
UPDATE plain SET k = 30 WHERE id = 4;
UPDATE plain SET k = 40, note = 'swapped' WHERE id = 3;
-- A value passed on through delete and insert.
BEGIN;
DELETE FROM plain WHERE id = 5;
INSERT INTO plain VALUES (7, 50, 'took 50');
COMMIT;
UPDATE plain SET k = 70 WHERE id = 7;
INSERT INTO plain VALUES (5, 50, 'back');
-- Everybody takes the neighbour's value.
UPDATE ring SET k = k % 5 + 1;
UPDATE chain SET k = k + 1;
UPDATE chain SET k = k - 1;
UPDATE chain SET k = 51 - k;
UPDATE strict SET k = 30 - k WHERE id IN (1, 2);
UPDATE strict SET k = CASE k WHEN 30 THEN 40 WHEN 40 THEN 50 ELSE 30 END WHERE id IN (3, 4, 5);
