CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL);
INSERT INTO t SELECT i, 'v' FROM generate_series(1, 500) i;
CREATE SCHEMA decoy;
GRANT USAGE ON SCHEMA decoy TO writer;
CREATE FUNCTION decoy.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS $$ SELECT '3'::xid8 $$;
CREATE FUNCTION decoy.nextval(regclass) RETURNS bigint LANGUAGE sql AS $$ SELECT 1::bigint $$;
CREATE FUNCTION decoy.put(n int, x text) RETURNS void LANGUAGE plpgsql SET search_path = decoy, pg_catalog AS $$ BEGIN
  INSERT INTO public.t VALUES (n, x) ON CONFLICT (id) DO UPDATE SET v = excluded.v;
END $$;
CREATE FUNCTION decoy.put_as_owner(n int, x text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = decoy, pg_temp AS $$ BEGIN
  UPDATE public.t SET v = x WHERE id = n;
  DELETE FROM public.t WHERE id = n + 1;
END $$;
