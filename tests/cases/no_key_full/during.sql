INSERT INTO twins VALUES (7, 'new'), (7, 'new');
-- Exactly one of the equal rows.
UPDATE twins SET b = 'one of four' WHERE ctid = (SELECT min(ctid) FROM twins WHERE a = 0);
DELETE FROM twins WHERE ctid = (SELECT min(ctid) FROM twins WHERE a = 1);
UPDATE twins SET a = 9 WHERE ctid = (SELECT min(ctid) FROM twins WHERE a IS NULL);
DELETE FROM twins WHERE ctid = (SELECT min(ctid) FROM twins WHERE a IS NULL AND b IS NULL);
UPDATE twins SET b = upper(b) WHERE a = 2;
DELETE FROM twins WHERE a = 7;
UPDATE odd SET n = 10 WHERE ctid = (SELECT min(ctid) FROM odd WHERE n = 1);
DELETE FROM odd WHERE ctid = (SELECT min(ctid) FROM odd WHERE n = 1);
UPDATE odd SET j = '[1, 2]', t = false, c = NULL, x = NULL WHERE n = 1;
UPDATE odd SET n = 20 WHERE ctid = (SELECT min(ctid) FROM odd WHERE n = 2);
DELETE FROM odd WHERE n = 10;
-- A row of NULLs is not NULL.
UPDATE composite SET n = 5 WHERE n = 1 AND r::text IS NOT NULL;
DELETE FROM composite WHERE ctid = (SELECT min(ctid) FROM composite WHERE n = 2);
