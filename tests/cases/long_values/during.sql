INSERT INTO t VALUES (2, 1, repeat(E'x\\y\t\n', 2000000), NULL, jsonb_build_object('a', repeat('z', 10000000)));
UPDATE t SET n = 2;
UPDATE t SET doc = 'now short', bin = decode(repeat('ab', 10000000), 'hex') WHERE id = 1;
UPDATE t SET id = 3 WHERE id = 2;
