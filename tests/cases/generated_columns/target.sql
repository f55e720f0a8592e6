CREATE TABLE twice_there (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE plain_here (id int PRIMARY KEY, a int, sum int GENERATED ALWAYS AS (id + a) STORED);
CREATE TABLE plain_there (id int PRIMARY KEY, a int, twice int);
