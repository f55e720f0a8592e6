-- Nothing was changed: the application goes on.
UPDATE heap SET b = 'y';
UPDATE nothing SET id = 2;
DELETE FROM could;
