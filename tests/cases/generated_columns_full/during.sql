UPDATE by_full SET a = 100 WHERE id = 1;
DELETE FROM by_full WHERE id = 3;
