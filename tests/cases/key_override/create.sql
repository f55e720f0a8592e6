CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v text);
ALTER TABLE t REPLICA IDENTITY FULL;
CREATE TABLE keyless (a int NOT NULL, b text NOT NULL, v text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE by_default (id int PRIMARY KEY, code text NOT NULL);
INSERT INTO t SELECT i, 'c' || i, 'v' || i FROM generate_series(1, 10) i;
INSERT INTO keyless SELECT i, 'b' || i, 'v' || i FROM generate_series(1, 10) i;
