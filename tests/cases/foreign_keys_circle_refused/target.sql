DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO writer', current_database()); END $$;
GRANT CREATE ON SCHEMA public TO writer;
SET ROLE writer;
CREATE TABLE hen (id int PRIMARY KEY, egg int);
CREATE TABLE egg (id int PRIMARY KEY, hen int CONSTRAINT egg_hen_fkey REFERENCES hen);
ALTER TABLE hen ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE;
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree, pad text);
