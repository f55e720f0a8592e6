INSERT INTO tree VALUES (40000, 1, 'late');
