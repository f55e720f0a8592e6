CREATE TABLE v (id int PRIMARY KEY, v varchar(5), c char(3));
CREATE TABLE i (id int PRIMARY KEY, n int);
