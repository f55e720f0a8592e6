CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL);
INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i;
CREATE TABLE other (id int);
GRANT INSERT ON other TO writer;
