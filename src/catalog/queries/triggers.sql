-- Bit 0 of tgtype: FOR EACH ROW.
SELECT t.tgrelid, t.tgname::text, t.tgenabled::text, t.tgtype & 1 = 1
  FROM pg_trigger t
 WHERE t.tgrelid = ANY ($1::oid[]) AND NOT t.tgisinternal
 ORDER BY t.tgrelid, t.tgname
