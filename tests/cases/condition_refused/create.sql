CREATE TABLE t (id int PRIMARY KEY, region text, v text);
INSERT INTO t VALUES (1, 'eu', 'a'), (2, 'us', 'b');
