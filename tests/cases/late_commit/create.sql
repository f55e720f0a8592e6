CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE u (id int PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) i;
INSERT INTO u SELECT i, 'v' FROM generate_series(1, 20) i;
