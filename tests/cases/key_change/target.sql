CREATE TABLE extra (id int PRIMARY KEY, v text, local text DEFAULT 'ours');
