SELECT i.indrelid, c.relname::text, pg_get_indexdef(i.indexrelid), i.indisunique, i.indisprimary,
       i.indisexclusion, i.indisreplident, i.indimmediate, i.indisvalid AND i.indisready AND i.indislive,
       ARRAY(SELECT a.attname::text
               FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
               LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
              WHERE k.position <= i.indnkeyatts
              ORDER BY k.position),
       pg_get_expr(i.indpred, i.indrelid),
       -- Every column the index needs: key, INCLUDE, expressions, predicate.
       ARRAY(SELECT a.attname::text
               FROM pg_attribute a
              WHERE a.attrelid = i.indrelid AND a.attnum > 0
                AND (a.attnum = ANY (i.indkey::int2[])
                     OR EXISTS (SELECT FROM pg_depend d
                                 WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                                   AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                                   AND d.refobjsubid = a.attnum))
              ORDER BY a.attnum)
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = ANY ($1::oid[])
 ORDER BY i.indrelid, NOT i.indisprimary, c.relname
