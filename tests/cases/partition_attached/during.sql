CREATE TABLE parts_2 (id int PRIMARY KEY, v text);
INSERT INTO parts_2 VALUES (11, 'came with it');
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (MAXVALUE);
INSERT INTO parts VALUES (12, 'not published yet');
