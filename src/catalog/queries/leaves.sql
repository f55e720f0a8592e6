SELECT root.oid, n.nspname::text, c.relname::text
  FROM unnest($1::oid[]) AS root (oid)
 CROSS JOIN LATERAL pg_partition_tree(root.oid) AS tree
  JOIN pg_class c ON c.oid = tree.relid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE tree.isleaf AND c.relkind <> 'p'
 ORDER BY root.oid, n.nspname, c.relname
