INSERT INTO all_indexes VALUES (11, 'ok', 11, ROW(NULL, 3), NULL);
UPDATE all_indexes SET c = c + 1000, m = 'ok', s = NULL WHERE id < 4;
INSERT INTO key_only VALUES (11, 'new');
