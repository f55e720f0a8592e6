CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE other (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, t int);
INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) i;
