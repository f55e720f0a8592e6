-- @one clerk
SET search_path = decoy, pg_catalog;
SELECT shop.put(1, 'put');
SELECT shop.put(21, 'new');
SELECT shop.put_as_owner(5, 'owner');
CALL shop.put_many(9);
-- @two clerk
SET search_path = '';
SELECT shop.put(2, 'from nowhere');
CREATE TEMP TABLE t (id int, v text);
SELECT shop.put_as_owner(3, 'past a temporary table');
SELECT shop.put_as_owner(8, 'owner');
