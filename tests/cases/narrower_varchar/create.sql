CREATE TABLE v (id int PRIMARY KEY, v varchar(20), c char(10));
CREATE TABLE i (id int PRIMARY KEY, n bigint);
INSERT INTO v VALUES (1, 'short', 'c'), (2, 'b', 'c');
INSERT INTO i VALUES (1, 1);
