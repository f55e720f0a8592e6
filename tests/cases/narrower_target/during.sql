UPDATE t SET v = 'fits', d = 'fits', c = 'abc' WHERE id = 1;
UPDATE t SET d = 'too long a secret' WHERE id = 1;
