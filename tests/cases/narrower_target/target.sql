CREATE DOMAIN tiny AS varchar(5);
CREATE TABLE t (id int PRIMARY KEY, v varchar(5), c char(3), d tiny, n numeric(5,2));
