CREATE TABLE t (id int PRIMARY KEY, f float8, r float4, d timestamptz, i interval, b bytea, m money, a float8[]);
INSERT INTO t SELECT i, i / 3.0, i / 3.0, '2020-02-03 04:05:06.789+00', '1 year -2 days', '\x00ff', 12.5, ARRAY[0.1, i] FROM generate_series(1, 20) i;
