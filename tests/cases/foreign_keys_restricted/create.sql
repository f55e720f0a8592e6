CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent, v text);
CREATE TABLE hen (id int PRIMARY KEY, egg int);
CREATE TABLE egg (id int PRIMARY KEY, hen int REFERENCES hen DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY IMMEDIATE;
INSERT INTO parent SELECT i, 'v' || i FROM generate_series(1, 20) i;
INSERT INTO child SELECT i, i % 20 + 1, 'v' FROM generate_series(1, 60) i;
