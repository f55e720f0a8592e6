INSERT INTO t VALUES (3, 'good', 'good');
