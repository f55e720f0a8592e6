SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       pg_get_userbyid(c.relowner)::text, c.relreplident::text, c.relrowsecurity, c.relforcerowsecurity,
       c.relpages, c.reltuples
  FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (schema, name, position)
  JOIN pg_namespace n ON n.nspname = wanted.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 't')
 ORDER BY wanted.position
