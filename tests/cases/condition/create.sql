CREATE TABLE in_key (id int, region text, v text, PRIMARY KEY (region, id));
CREATE TABLE by_full (id int PRIMARY KEY, region text, v text);
ALTER TABLE by_full REPLICA IDENTITY FULL;
INSERT INTO in_key SELECT i, (ARRAY['eu', 'us'])[i % 2 + 1], 'v' || i FROM generate_series(1, 20) i;
INSERT INTO by_full SELECT i, (ARRAY['eu', 'us', NULL])[i % 3 + 1], 'v' || i FROM generate_series(1, 20) i;
