CREATE TABLE t (id int PRIMARY KEY, code int UNIQUE DEFERRABLE, name text UNIQUE);
INSERT INTO t SELECT i, i, 'n' || i FROM generate_series(1, 300) i;
