SELECT o.conrelid, o.conname::text, o.contype::text, pg_get_constraintdef(o.oid), o.condeferrable,
       o.convalidated, fn.nspname::text, f.relname::text, o.confdeltype::text, o.confupdtype::text,
       ARRAY(SELECT a.attname::text
               FROM pg_attribute a
              WHERE a.attrelid = o.conrelid AND a.attnum = ANY (o.conkey)
              ORDER BY a.attnum)
  FROM pg_constraint o
  LEFT JOIN pg_class f ON f.oid = o.confrelid
  LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
 WHERE o.conrelid = ANY ($1::oid[]) AND o.contype IN ('c', 'f', 'p', 'u', 'x')
 ORDER BY o.conrelid, o.conname
