CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE overwritten (id int PRIMARY KEY, v text);
INSERT INTO t VALUES (1, 'here before'), (100, 'here before');
INSERT INTO overwritten VALUES (1, 'here before'), (100, 'here before');
