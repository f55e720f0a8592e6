ALTER TABLE parts DETACH PARTITION parts_2;
INSERT INTO parts_2 VALUES (100, 'not ours any more');
