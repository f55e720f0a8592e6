CREATE TABLE gone (id int PRIMARY KEY, v text);
CREATE TABLE there (id int PRIMARY KEY, v text);
INSERT INTO gone SELECT i, 'v' || i FROM generate_series(1, 10) i;
