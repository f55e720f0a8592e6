SELECT c.relname::text, c.relkind::text
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
   -- A partition belongs to its root, which is listed itself.
   AND NOT c.relispartition
 ORDER BY c.relname
