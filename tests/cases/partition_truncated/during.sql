UPDATE parts SET v = 'before' WHERE id = 11;
TRUNCATE parts_1;
