CREATE TABLE t (id int, code text PRIMARY KEY, v text);
