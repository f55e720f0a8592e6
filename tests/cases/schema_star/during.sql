INSERT INTO sales.good VALUES (2, 'b');
UPDATE sales."Good Too" SET v = 'b';
INSERT INTO sales.parts VALUES (3);
DELETE FROM sales.parts WHERE id = 1;
INSERT INTO sales.heap VALUES ('x');
UPDATE sales.heap SET v = 'y';
