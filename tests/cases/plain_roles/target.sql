DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO writer', current_database()); END $$;
