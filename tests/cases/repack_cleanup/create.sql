CREATE TABLE t (id int PRIMARY KEY, doc jsonb, plain json, meta jsonb);
INSERT INTO t SELECT i, '{"a": null, "b": {"c": null, "d": 1}}', '{"a":null,"b":2}', '{"x": 1, "y": 2, "z": {"x": 3}}' FROM generate_series(1, 100) i;
