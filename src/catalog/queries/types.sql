WITH RECURSIVE reach (type) AS (
  SELECT unnest($1::oid[])
   UNION
  SELECT edge.type
    FROM reach
    JOIN pg_type t ON t.oid = reach.type
   CROSS JOIN LATERAL (
         SELECT t.typelem AS type WHERE t.typcategory = 'A' AND t.typelem <> 0
          UNION ALL
         SELECT t.typbasetype WHERE t.typtype = 'd'
          UNION ALL
         SELECT a.atttypid FROM pg_attribute a
          WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
          UNION ALL
         SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
          UNION ALL
         SELECT r.rngtypid FROM pg_range r WHERE r.rngmultitypid = t.oid
         ) AS edge
)
SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text,
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0::oid END,
       t.typbasetype, format_type(t.oid, -1), x.extname::text,
       -- A default btree operator class for the type, or for one it is relabelled to (varchar is text).
       EXISTS (SELECT FROM pg_opclass oc JOIN pg_am am ON am.oid = oc.opcmethod
                WHERE am.amname = 'btree' AND oc.opcdefault
                  AND (oc.opcintype = t.oid
                       OR EXISTS (SELECT FROM pg_cast ca
                                   WHERE ca.castsource = t.oid AND ca.casttarget = oc.opcintype
                                     AND ca.castmethod = 'b' AND ca.castcontext = 'i'))),
       -- enum
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
       -- domain
       format_type(t.typbasetype, t.typtypmod), t.typnotnull,
       (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname)
          FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
         WHERE t.typtype = 'd' AND co.oid = t.typcollation
           AND t.typcollation <> (SELECT b.typcollation FROM pg_type b WHERE b.oid = t.typbasetype)),
       ARRAY(SELECT 'CONSTRAINT ' || quote_ident(o.conname) || ' ' || pg_get_constraintdef(o.oid)
               FROM pg_constraint o WHERE o.contypid = t.oid AND o.contype = 'c' ORDER BY o.conname),
       -- composite
       rel.relkind::text,
       ARRAY(SELECT a.atttypid FROM pg_attribute a
              WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum),
       ARRAY(SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod)
                    || coalesce((SELECT ' COLLATE ' || quote_ident(cn.nspname) || '.' || quote_ident(co.collname)
                                   FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
                                  WHERE co.oid = a.attcollation
                                    AND a.attcollation <> (SELECT f.typcollation FROM pg_type f
                                                            WHERE f.oid = a.atttypid)), '')
               FROM pg_attribute a
              WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
              ORDER BY a.attnum),
       -- range: subtype, its operator class, collation, functions, multirange
       r.rngsubtype, format_type(r.rngsubtype, -1),
       (SELECT quote_ident(cn.nspname) || '.' || quote_ident(oc.opcname)
          FROM pg_opclass oc JOIN pg_namespace cn ON cn.oid = oc.opcnamespace
         WHERE oc.oid = r.rngsubopc AND NOT oc.opcdefault),
       (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname)
          FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
         WHERE co.oid = r.rngcollation
           AND r.rngcollation <> (SELECT s.typcollation FROM pg_type s WHERE s.oid = r.rngsubtype)),
       CASE WHEN r.rngcanonical <> 0 THEN r.rngcanonical::regproc::text END,
       CASE WHEN r.rngsubdiff <> 0 THEN r.rngsubdiff::regproc::text END,
       (SELECT mn.nspname::text FROM pg_type m JOIN pg_namespace mn ON mn.oid = m.typnamespace
         WHERE m.oid = r.rngmultitypid),
       (SELECT m.typname::text FROM pg_type m WHERE m.oid = r.rngmultitypid),
       (SELECT mr.rngtypid FROM pg_range mr WHERE mr.rngmultitypid = t.oid)
  FROM (SELECT DISTINCT type FROM reach) AS wanted
  JOIN pg_type t ON t.oid = wanted.type
  JOIN pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_class rel ON rel.oid = t.typrelid
  LEFT JOIN pg_range r ON r.rngtypid = t.oid
  LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
                       AND d.refclassid = 'pg_extension'::regclass
  LEFT JOIN pg_extension x ON x.oid = d.refobjid
 ORDER BY t.oid
