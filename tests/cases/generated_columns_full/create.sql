CREATE TABLE by_full (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
ALTER TABLE by_full REPLICA IDENTITY FULL;
INSERT INTO by_full SELECT i, i FROM generate_series(1, 10) i;
