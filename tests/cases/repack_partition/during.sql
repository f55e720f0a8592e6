-- @one writer
UPDATE whole SET v = v + 1 WHERE id % 10 = 0;
-- Rows come from and go to the default partition.
UPDATE whole SET id = id + 2000 WHERE id BETWEEN 100 AND 120;
UPDATE whole SET id = id - 1300 WHERE id BETWEEN 1400 AND 1405;
DELETE FROM whole WHERE id BETWEEN 500 AND 510;
INSERT INTO whole VALUES (0, 7), (5000, 7);
