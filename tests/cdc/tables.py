"""The tables that the writers change: one for each way in which rows are told apart.

    accounts      a primary key
    documents     a primary key, and values that are stored out of line (TOAST)
    tags          REPLICA IDENTITY USING INDEX, no primary key
    notes         REPLICA IDENTITY FULL, no key: rows may be equal
    readings      partitions, published as their root

Each has a `version` that every update raises, and all but `notes` an `id` that tells rows apart. What is done to them
is also written into `audit`, by triggers and so in the same transactions: what a history has to tell.
"""

from __future__ import annotations

KEYED = ("accounts", "documents", "tags", "readings")
TABLES = (*KEYED, "notes")

DEFINITIONS = """
    CREATE SEQUENCE ids START 1001;
    CREATE TABLE accounts (
        id bigint PRIMARY KEY, owner text, balance numeric(12,2), version int NOT NULL DEFAULT 0, seen timestamptz
    );
    CREATE TABLE documents (
        id bigint PRIMARY KEY, title text, body text, extra text, version int NOT NULL DEFAULT 0
    );
    ALTER TABLE documents ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
    CREATE TABLE tags (label text, id bigint NOT NULL, version int NOT NULL DEFAULT 0);
    CREATE UNIQUE INDEX tags_id ON tags (id);
    ALTER TABLE tags REPLICA IDENTITY USING INDEX tags_id;
    CREATE TABLE notes (id bigint, body text, version int NOT NULL DEFAULT 0);
    ALTER TABLE notes REPLICA IDENTITY FULL;
    CREATE TABLE readings (id bigint PRIMARY KEY, value float8, version int NOT NULL DEFAULT 0) PARTITION BY RANGE (id);
    CREATE TABLE readings_low PARTITION OF readings FOR VALUES FROM (MINVALUE) TO (500);
    CREATE TABLE readings_middle (version int NOT NULL DEFAULT 0, value float8, id bigint NOT NULL);
    ALTER TABLE readings ATTACH PARTITION readings_middle FOR VALUES FROM (500) TO (1500);
    CREATE TABLE readings_high PARTITION OF readings DEFAULT;
"""

LONG = "(SELECT string_agg(md5(({0})::text || k), '') FROM generate_series(1, 120) k)"
"""About 4 KB that do not compress, made of a number."""

ROWS = f"""
    INSERT INTO accounts SELECT i, 'owner ' || i, i / 8.0, 0, '2024-01-01Z' FROM generate_series(1, 1000) i;
    INSERT INTO documents SELECT i, 'title ' || i, {LONG.format("i")}, CASE WHEN i % 3 = 0 THEN {LONG.format("-i")} END
        FROM generate_series(1, 200) i;
    INSERT INTO tags SELECT CASE WHEN i % 5 <> 0 THEN 'tag ' || i END, i FROM generate_series(1, 400) i;
    INSERT INTO notes SELECT i % 40, 'note' FROM generate_series(1, 300) i;
    INSERT INTO readings SELECT i, i / 7.0 FROM generate_series(1, 1000) i;
"""

AUDIT = """
    CREATE TABLE audit ("table" text, op text, id bigint, version int);
    CREATE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO audit VALUES (TG_ARGV[0], 'insert', NEW.id, NEW.version);
        ELSIF TG_OP = 'DELETE' THEN
            INSERT INTO audit VALUES (TG_ARGV[0], 'delete', OLD.id, NULL);
        ELSE
            IF NEW.id <> OLD.id THEN
                INSERT INTO audit VALUES (TG_ARGV[0], 'delete', OLD.id, NULL);
            END IF;
            INSERT INTO audit VALUES (TG_ARGV[0], 'update', NEW.id, NEW.version);
        END IF;
        RETURN NULL;
    END $$;
    CREATE FUNCTION audit_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit VALUES (TG_ARGV[0], 'truncate', NULL, NULL);
        RETURN NULL;
    END $$;
""" + "".join(
    f"""
    CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION audit_row('{table}');
    CREATE TRIGGER audit_truncate AFTER TRUNCATE ON {table} EXECUTE FUNCTION audit_truncate('{table}');
    """
    for table in TABLES
)
"""To be run before the first row comes."""
