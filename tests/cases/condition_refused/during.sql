UPDATE t SET v = 'the application goes on';
ALTER TABLE t REPLICA IDENTITY FULL;
