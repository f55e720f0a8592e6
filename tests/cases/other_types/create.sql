CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE t (id int PRIMARY KEY, a int, b bool, e mood, n numeric(10,2), f float4, j json, c char(5), ip inet, ts timestamptz);
INSERT INTO t SELECT i, i, i % 2 = 0, 'sad', i / 4.0, i / 4.0, '{"a": 1}', 'c', '10.0.0.1', '2020-06-01 12:00+02' FROM generate_series(1, 10) i;
CREATE TABLE k (id int PRIMARY KEY, v text);
INSERT INTO k SELECT i, 'v' FROM generate_series(1, 10) i;
