INSERT INTO t VALUES (11, -5, true, 'ok', 1.25, 0.5, '[1,  2]', 'c', '10.0.0.2', '2021-06-01 12:00+02');
UPDATE t SET b = NOT b, e = 'ok', n = n + 1, j = '{"b":  2}', ip = '::1', c = 'xy' WHERE id < 4;
UPDATE t SET id = 100 WHERE id = 5;
DELETE FROM t WHERE id = 6;
UPDATE k SET v = 'changed' WHERE id = 1;
UPDATE k SET id = 100 WHERE id = 2;
DELETE FROM k WHERE id = 3;
INSERT INTO k VALUES (11, 'new');
