CREATE TABLE t (id int PRIMARY KEY, v int, name text);
INSERT INTO t VALUES (1, 2, 'a');
