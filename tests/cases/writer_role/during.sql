-- @one clerk
INSERT INTO shop.t (v) VALUES (2), (3);
UPDATE shop.t SET v = 4 WHERE id = 1;
DELETE FROM shop.t WHERE id IN (2, 3);
INSERT INTO shop.log VALUES (1, 'one');
BEGIN;
TRUNCATE shop.lines;
INSERT INTO shop.lines VALUES (1, 1);
COMMIT;
-- What it drew itself is what it is told.
DO $$ DECLARE n bigint; BEGIN
  INSERT INTO shop.t (v) VALUES (9) RETURNING id INTO n;
  IF n <> currval('shop.t_id_seq') THEN RAISE 'drew %, was told %', n, currval('shop.t_id_seq'); END IF;
END $$;
