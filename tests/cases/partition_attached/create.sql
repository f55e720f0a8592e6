CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (10);
INSERT INTO parts SELECT i, 'v' || i FROM generate_series(1, 5) i;
