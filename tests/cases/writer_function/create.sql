CREATE SCHEMA shop;
CREATE SCHEMA decoy;
CREATE TABLE shop.t (id int PRIMARY KEY, v text);
INSERT INTO shop.t SELECT i, 'v' FROM generate_series(1, 20) i;
GRANT USAGE ON SCHEMA shop, decoy TO clerk;
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.t TO clerk;
CREATE FUNCTION decoy.format(text, VARIADIC "any") RETURNS text LANGUAGE internal AS 'text_format';
CREATE FUNCTION decoy.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS $$ SELECT '3'::xid8 $$;
CREATE FUNCTION decoy.nextval(regclass) RETURNS bigint LANGUAGE sql AS $$ SELECT 1::bigint $$;
CREATE FUNCTION shop.put(n int, x text) RETURNS void LANGUAGE sql SET search_path = shop, decoy, pg_catalog AS $$ INSERT INTO t VALUES (n, x) ON CONFLICT (id) DO UPDATE SET v = excluded.v $$;
CREATE FUNCTION shop.put_as_owner(n int, x text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = decoy, pg_temp SET "DateStyle" = 'German' AS $$ BEGIN
  UPDATE shop.t SET v = x WHERE id = n;
  DELETE FROM shop.t WHERE id = n + 1;
EXCEPTION WHEN unique_violation THEN NULL;
END $$;
CREATE PROCEDURE shop.put_many(n int) LANGUAGE plpgsql AS $$ BEGIN
  FOR i IN 1..n LOOP
    INSERT INTO shop.t VALUES (100 + i, 'many');
    IF i % 3 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
  END LOOP;
END $$;
