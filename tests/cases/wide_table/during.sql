INSERT INTO wide (id, c1600) VALUES (7, 1600);
UPDATE wide SET c2 = 0, c800 = NULL, c1600 = -1 WHERE id < 3;
UPDATE wide SET id = 100 WHERE id = 3;
DELETE FROM wide WHERE id = 4;
