UPDATE v SET c = 'abcdef' WHERE id = 2;
UPDATE v SET v = 'too long' WHERE id = 1;
INSERT INTO v VALUES (3, 'too long', 'abcd');
UPDATE i SET n = 3000000000;
