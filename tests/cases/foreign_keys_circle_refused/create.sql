CREATE TABLE hen (id int PRIMARY KEY, egg int);
CREATE TABLE egg (id int PRIMARY KEY, hen int REFERENCES hen);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE;
-- A tree: rows refer to rows further back, in a table of several chunks.
CREATE TABLE tree (id int PRIMARY KEY, parent int, pad text);
INSERT INTO hen VALUES (1, NULL);
INSERT INTO egg VALUES (1, 1);
UPDATE hen SET egg = 1;
INSERT INTO tree SELECT i, CASE WHEN i < 30000 THEN 30001 - (i % 100) END, repeat('x', 500) FROM generate_series(1, 30001) i;
