CREATE TABLE t (id int PRIMARY KEY, n int, doc text, bin bytea, j jsonb);
INSERT INTO t VALUES (1, 1, repeat('long äß ', 1200000), decode(repeat('00ff', 2500000), 'hex'), '{}');
