-- @one writer
SET extra_float_digits = 0;
SET DateStyle = 'German';
INSERT INTO t VALUES (1001, 0.1::float8 + 0.2::float8);
UPDATE t SET v = 0.1::float8 + 0.2::float8 WHERE id = 2;
