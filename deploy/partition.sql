-- Partition the ledger's largest tables by hash, with the same columns, keys and names of indexes.
--
-- Run it in a maintenance window, with workers and gateways stopped: rows are copied.
--   psql --set ON_ERROR_STOP=1 --single-transaction --file partition.sql "$ACKBRIDGE_LEDGER_URL"
DO $$
DECLARE
    partitions CONSTANT integer := 16;
    target record;
    definition text;
    definitions text[];
    old text;
BEGIN
    FOR target IN
        SELECT * FROM (VALUES
            ('calls', 'call_id'),
            ('responses', 'call_id'),
            ('acknowledgements', 'call_id'),
            ('correlations', 'reference'),
            ('event_keys', 'event_key')
        ) AS tables (name, key)
    LOOP
        old := target.name || '_old';
        EXECUTE format('ALTER TABLE %I RENAME TO %I', target.name, old);
        definitions := ARRAY(
            SELECT format('ALTER TABLE %I ADD CONSTRAINT %I %s',
                          target.name, conname, pg_get_constraintdef(oid))
            FROM pg_constraint WHERE conrelid = old::regclass AND contype IN ('p', 'u')
        ) || ARRAY(
            SELECT replace(indexdef, ' ON ' || schemaname || '.' || old,
                           format(' ON %I.%I', schemaname, target.name))
            FROM pg_indexes
            WHERE tablename = old AND schemaname = current_schema() AND indexname NOT IN (
                SELECT conname FROM pg_constraint WHERE conrelid = old::regclass
            )
        );
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS) PARTITION BY HASH (%I)',
                       target.name, old, target.key);
        EXECUTE format('COMMENT ON TABLE %I IS %L',
                       target.name, obj_description(old::regclass, 'pg_class'));
        FOR number IN 0 .. partitions - 1 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
                           target.name || '_' || number, target.name, partitions, number);
        END LOOP;
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', target.name, old);
        EXECUTE format('DROP TABLE %I', old);
        FOREACH definition IN ARRAY definitions LOOP
            EXECUTE definition;
        END LOOP;
    END LOOP;
END $$;
