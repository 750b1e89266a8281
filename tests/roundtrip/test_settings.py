"""What servers, databases and roles are set to must not show in the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.embedded_postgres import EmbeddedPostgres
from tests.pipelines import make_pipeline, run
from tests.postgres_server import Database, unique_name
from tests.roundtrip.builtin_types import EVERY_CASE, Case
from tests.roundtrip.movement import Pair, assert_moves
from tests.roundtrip.tables import SHEETS

# Two sets, so that one side's oddity cannot make up for the other's.
ODD = {
    "TimeZone": ("'Australia/Lord_Howe'", "'America/St_Johns'"),
    "DateStyle": ("'German, DMY'", "'SQL, YMD'"),
    "IntervalStyle": ("sql_standard", "iso_8601"),
    "extra_float_digits": ("-15", "0"),
    "bytea_output": ("escape", "escape"),
    "lc_monetary": ("'C.utf8'", "'POSIX'"),
    "array_nulls": ("off", "off"),
    "quote_all_identifiers": ("on", "off"),
    "standard_conforming_strings": ("off", "off"),
    "backslash_quote": ("off", "on"),
    "escape_string_warning": ("on", "on"),
    "client_encoding": ("'LATIN1'", "'WIN1252'"),
    "xmloption": ("document", "document"),
    "default_transaction_isolation": ("serializable", "serializable"),
    "default_transaction_read_only": ("on", "on"),
    "default_transaction_deferrable": ("on", "on"),
    "transform_null_equals": ("on", "on"),
    "plan_cache_mode": ("force_generic_plan", "force_custom_plan"),
    "enable_seqscan": ("off", "off"),
    "idle_in_transaction_session_timeout": ("1", "1"),
    "search_path": ("shadows, pg_catalog, public", "shadows, pg_catalog, public"),
}

# Found before pg_catalog's own by those who do not ask for pg_catalog.
SHADOWS = """
    CREATE SCHEMA shadows;
    CREATE TABLE shadows.pg_class (a integer);
    CREATE TABLE shadows.pg_type (a integer);
    CREATE FUNCTION shadows.now() RETURNS integer LANGUAGE sql RETURN 1;
    CREATE FUNCTION shadows.format(text, text) RETURNS text LANGUAGE sql RETURN 'shadow';
""" + "".join(
    f"CREATE DOMAIN shadows.{name} AS pg_catalog.text;"
    for name in (
        "text",
        "inet",
        "uuid",
        "date",
        "money",
        "point",
        "bytea",
        "jsonb",
        "tsvector",
        "oid",
        "regclass",
        '"char"',
    )
)
TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'NULL');
    CREATE DOMAIN word AS character(7);
    CREATE DOMAIN moment AS timestamptz;
    CREATE TYPE mix AS (t text, f float8, at timestamptz, i interval, b bytea, m mood, ws word[], money money,
                        x mood[]);
    CREATE TYPE float_span AS RANGE (subtype = float8);
    CREATE DOMAIN relation AS regclass;
    CREATE TYPE named AS (r relation, t regtype, ts regtype[]);
    CREATE TYPE relations AS RANGE (subtype = regclass);
"""
USERS = (
    Case("mood", ("sad", "NULL")),
    Case("word", ("", "x", "NULL")),
    Case("moment", ("infinity", "2024-03-31 02:30:00 Europe/Berlin", "0001-01-01 BC")),
    Case(
        "mix",
        (
            '("NULL",0.1,"2024-10-27 02:30:00+02","-1 mon 2 days -03:00:00.5","\\\\x00ff5c","NULL",'
            '"{NULL,""NULL"",x}",$1.50,"{NULL,sad}")',
            "(,,,,,,,,)",
        ),
    ),
    Case("float_span", ("[0.1,1e300)", "empty")),
    # What the name alone does not tell: there are two of each.
    Case("relation", ("pg_catalog.pg_class", "shadows.pg_class", "-")),
    Case("named", ('(shadows.pg_class,shadows.inet,"{pg_catalog.inet,shadows.inet}")', "(pg_catalog.pg_class,mood,)")),
    Case("relations", ("[pg_catalog.pg_type,pg_catalog.pg_type]", "empty")),
    Case("regclass", ("pg_catalog.pg_class", "shadows.pg_class")),
    Case("regtype", ("pg_catalog.inet", "shadows.inet", "public.mood")),
)


def setting_statements(database: Database, side: int) -> str:
    """For the role of the pipelines alone, so that tests can look on undisturbed."""
    return "".join(
        f'ALTER ROLE etl IN DATABASE "{database.name}" SET {name} = {values[side]};'
        for name, values in ODD.items()
        if database.fetch("SELECT FROM pg_settings WHERE name = lower(%s)", [name.lower()])
        or database.fetch("SELECT FROM pg_settings WHERE name = %s", [name])
    )


@pytest.fixture(scope="module")
def odd_pair(postgres: EmbeddedPostgres) -> Iterator[Pair]:
    """Both sides are set to odd things; tables have to be made as the superuser."""
    names = [unique_name("odd_source"), unique_name("odd_destination")]
    for side, name in enumerate(names):
        postgres.create_database(name)
        database = Database(postgres, name)
        database.execute(SHADOWS + TYPES)
        database.execute(setting_statements(database, side), superuser=True)
    yield Pair(*(Database(postgres, name) for name in names))
    for name in names:
        postgres.drop_database(name)


def test_the_settings_are_in_force(odd_pair: Pair) -> None:
    """Else this module would prove nothing."""
    for side, database in enumerate((odd_pair.source, odd_pair.destination)):
        with database.connect() as connection:
            for name in ("TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "array_nulls"):
                [[value]] = connection.execute(f"SHOW {name}".encode()).fetchall()
                assert value == ODD[name][side].strip("'")


@pytest.mark.parametrize("sheet", SHEETS)
def test_every_value_of_every_type_arrives_whatever_is_set(tmp_path: Path, odd_pair: Pair, sheet: str) -> None:
    SHEETS[sheet]([*EVERY_CASE, *USERS]).create(odd_pair.source, sheet)
    assert_moves(tmp_path, odd_pair, sheet)


@pytest.mark.parametrize("column", ["inet", "regclass"])
def test_triggers_and_checks_of_the_destination_see_its_own_search_path(
    tmp_path: Path, source_db: Database, destination_db: Database, column: str
) -> None:
    """Names are read under another one, in which these would not find their functions and tables."""
    literal = {"inet": "::1", "regclass": "pg_type"}[column]
    source_db.execute(f"CREATE TABLE t (n int, odd {column}); INSERT INTO t VALUES (1, '{literal}'), (2, NULL)")
    destination_db.execute(
        f"""
        CREATE SCHEMA mine; CREATE SCHEMA raw;
        ALTER DATABASE "{destination_db.name}" SET search_path = mine;
        SET search_path = mine;
        CREATE TABLE journal (path text, odd text);
        CREATE FUNCTION allowed({column}) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
            AS 'BEGIN RETURN (SELECT count(*) >= 0 FROM journal); END';
        CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO journal VALUES (current_setting(''search_path''), NEW.odd); RETURN NEW; END';
        CREATE TABLE raw.t (n int, odd {column} CHECK (allowed(odd)));
        CREATE TRIGGER down BEFORE INSERT ON raw.t FOR EACH ROW EXECUTE FUNCTION write_down();
        """
    )
    for mode in ("append", "replace"):
        run(make_pipeline(tmp_path, source_db, destination_db, ["t"], write_mode=mode, name=mode))
    assert destination_db.fetch("SELECT n, odd::text FROM raw.t ORDER BY n") == [
        (1, {"inet": "::1/128", "regclass": "pg_type"}[column]),
        (2, None),
    ]
    assert destination_db.fetch("SELECT path, count(*) FROM mine.journal GROUP BY 1") == [("mine", 4)]


def test_a_domains_check_finds_the_functions_of_its_user(
    tmp_path: Path, source_db: Database, destination_db: Database
) -> None:
    for database in (source_db, destination_db):
        database.execute(
            f"""
            CREATE SCHEMA mine; ALTER DATABASE "{database.name}" SET search_path = mine; SET search_path = mine;
            CREATE TABLE allowed (word text); INSERT INTO allowed VALUES ('yes');
            CREATE FUNCTION is_allowed(text) RETURNS boolean LANGUAGE plpgsql
                AS 'BEGIN RETURN EXISTS (SELECT FROM allowed WHERE word = $1); END';
            CREATE DOMAIN public.word AS text CHECK (is_allowed(value));
            """
        )
    source_db.execute(
        "CREATE TABLE public.t (n int PRIMARY KEY, w public.word); INSERT INTO public.t VALUES (1, 'yes')"
    )
    assert_moves(tmp_path, Pair(source_db, destination_db), "t")
