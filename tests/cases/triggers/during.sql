INSERT INTO watched VALUES (3, 'c');
UPDATE watched SET v = 'x' WHERE id = 1;
DELETE FROM watched WHERE id = 2;
INSERT INTO always VALUES (1, 'c');
