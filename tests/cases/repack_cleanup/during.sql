-- @one writer
INSERT INTO t VALUES (1001, '{"a": null, "n": 1}', '{"a":null,"n":1}', '{"x": 1, "n": 1}');
UPDATE t SET doc = '{"q": null, "u": 2}' WHERE id = 5;
