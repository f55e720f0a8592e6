CREATE TABLE watched (id int PRIMARY KEY, v text);
CREATE TABLE always (id int PRIMARY KEY, v text);
INSERT INTO watched VALUES (1, 'a'), (2, 'b');
