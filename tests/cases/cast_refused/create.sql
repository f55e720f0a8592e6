CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN mine AS mood;
CREATE TABLE t (id int PRIMARY KEY, m mood, d mine);
INSERT INTO t VALUES (1, 'good', 'bad'), (2, NULL, 'good');
