-- @one writer
SET search_path = decoy, pg_catalog;
SELECT put(1, 'put');
SELECT put(1001, 'new');
SELECT put_as_owner(5, 'owner');
-- @two writer
SET search_path = '';
CREATE TEMP TABLE t (id int, v text);
SELECT decoy.put(3, 'past a temporary table');
SELECT decoy.put_as_owner(8, 'owner');
