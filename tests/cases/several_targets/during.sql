INSERT INTO orders VALUES (21, 'eu', 1, 's'), (22, 'us', 2, 's');
UPDATE orders SET total = total * 2 WHERE id < 5;
UPDATE orders SET secret = 'other' WHERE id < 5;
DELETE FROM orders WHERE id IN (7, 8);
UPDATE orders SET id = 100 WHERE id = 9;
BEGIN;
INSERT INTO orders VALUES (50, 'eu', 1, 's');
DELETE FROM orders WHERE id = 50;
COMMIT;
