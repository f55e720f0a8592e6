DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO fetcher', current_database()); END $$;
