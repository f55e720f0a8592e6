-- @one writer
INSERT INTO t VALUES (1001, 1);
