-- @one writer
UPDATE t SET v = 2 WHERE id <= 20;
UPDATE t SET id = id + 1000 WHERE id > 40;
