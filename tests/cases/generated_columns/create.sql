CREATE TABLE twice_there (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE made (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text);
CREATE TABLE plain_here (id int PRIMARY KEY, a int, sum int);
CREATE TABLE plain_there (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO twice_there SELECT i, i FROM generate_series(1, 10) i;
INSERT INTO made SELECT i, i FROM generate_series(1, 10) i;
INSERT INTO plain_here SELECT i, i, 0 FROM generate_series(1, 10) i;
INSERT INTO plain_there SELECT i, i FROM generate_series(1, 10) i;
