CREATE TABLE t (id int PRIMARY KEY, n int, v text);
INSERT INTO t VALUES (1, 10, 'a');
