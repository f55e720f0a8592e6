-- @one writer
INSERT INTO t SELECT i, 2 FROM generate_series(1001, 6010) i;
UPDATE t SET v = v + 1;
