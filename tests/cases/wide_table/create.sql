DO $$ BEGIN EXECUTE 'CREATE TABLE wide (id int PRIMARY KEY, ' || (SELECT string_agg('c' || i || ' int', ', ') FROM generate_series(2, 1600) i) || ')'; END $$;
DO $$ BEGIN EXECUTE 'INSERT INTO wide SELECT r' || repeat(', r', 1599) || ' FROM generate_series(1, 5) r'; END $$;
INSERT INTO wide (id) VALUES (6);
