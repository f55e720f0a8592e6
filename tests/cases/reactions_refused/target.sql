DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO writer', current_database()); END $$;
GRANT CREATE ON SCHEMA public TO writer;
SET ROLE writer;
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id int PRIMARY KEY, p int CONSTRAINT follows REFERENCES parent ON DELETE CASCADE);
CREATE TABLE watched (id int PRIMARY KEY, v text);
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := upper(NEW.v); RETURN NEW; END $$;
CREATE TRIGGER shouts BEFORE INSERT OR UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION shout();
