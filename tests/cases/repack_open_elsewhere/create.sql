CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO t SELECT i, 1 FROM generate_series(1, 500) i;
CREATE TABLE other (id int);
GRANT INSERT ON other TO writer;
