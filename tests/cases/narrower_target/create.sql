CREATE TABLE t (id int PRIMARY KEY, v varchar(20), c char(10), d text, n numeric);
INSERT INTO t VALUES (1, 'short', 'c', 'd', 1.5);
