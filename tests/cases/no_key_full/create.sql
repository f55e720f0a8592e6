CREATE TABLE twins (a int, b text);
ALTER TABLE twins REPLICA IDENTITY FULL;
CREATE TABLE odd (n int, j json, x xml, p point, jb jsonb, t bool, c char(8), i inet, d cidr, m "char", o name, f float8, y bytea,
    arr bool[], r int4range, v interval, z timestamptz, q numeric, e bit(5));
ALTER TABLE odd REPLICA IDENTITY FULL;
CREATE TYPE inner_row AS (a int, b bool);
CREATE TABLE composite (n int, r inner_row);
ALTER TABLE composite REPLICA IDENTITY FULL;
INSERT INTO twins SELECT i % 3, 'same' FROM generate_series(1, 12) i;
INSERT INTO twins SELECT NULL, NULL FROM generate_series(1, 3);
INSERT INTO odd SELECT 1, '{"a":  1, "a": 2}', '<a b="1"/>', '(1,2)', '{"k": [1, null]}', true, 'ab', '10.0.0.1', '10.0.0.0/8', 'c', 'somename',
    1.5, '\x00ff', '{t,NULL,f}', '[1,5)', '1 day 02:00', '2020-01-01 00:00+02', 1.50, '10101' FROM generate_series(1, 3);
INSERT INTO odd (n) SELECT 2 FROM generate_series(1, 3);
INSERT INTO composite VALUES (1, NULL), (1, ROW(NULL, NULL)), (2, ROW(1, true)), (2, ROW(1, true));
