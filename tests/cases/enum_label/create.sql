CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE t (id int PRIMARY KEY, m mood, v text);
INSERT INTO t VALUES (1, 'sad', 'a'), (2, 'ok', 'b');
