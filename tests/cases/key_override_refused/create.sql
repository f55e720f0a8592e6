CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
CREATE TABLE no_index (id int PRIMARY KEY, code text NOT NULL);
ALTER TABLE no_index REPLICA IDENTITY FULL;
INSERT INTO t VALUES (1, 'a', 'b');
