-- @busy writer
UPDATE t SET v = 2 WHERE id <= 100;
-- @told
-- @idle writer
COMMIT;
