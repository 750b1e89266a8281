"""PostgreSQL's own types with the ends of their ranges: what a column can be, and what must survive the journey.

Literals are what the type's input function reads. `test_builtin_types.py` holds this list against `pg_type`: a type
that is neither here nor in `WITHOUT_INPUT` fails it.
"""

from __future__ import annotations

from dataclasses import dataclass

INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)
ODD_TEXT = (
    "",
    " ",
    "NULL",
    "null",
    "\\N",
    "\\.",
    "it's",
    '"quoted"',
    "back\\slash",
    "tab\there",
    "line\nbreak\r\n",
    "{a,b}",
    "(1,2)",
    "Grüße, 世界 🌍",
    "e\u0301 \u200d \ufeff \U0010ffff",
    "\x01\x7f",
    "x" * 5000,
)


@dataclass(frozen=True)
class Case:
    """A type as SQL writes it, and literals of it."""

    type: str
    literals: tuple[str, ...]


def numeric_literals(precision: int, scale: int) -> tuple[str, ...]:
    """Ends, neighbours of zero and powers of ten of numeric(precision, scale), 0 ≤ scale ≤ precision."""

    def shifted(digits: int) -> str:
        text = str(abs(digits)).rjust(scale + 1, "0")
        whole, fraction = (text[:-scale], text[-scale:]) if scale else (text, "")
        return ("-" if digits < 0 else "") + whole + ("." + fraction if fraction else "")

    numbers = {0, 1, -1, 10**precision - 1, 1 - 10**precision, 10 ** (precision - 1), -(10 ** (precision // 2))}
    numbers |= {5 * 10 ** (precision - 1), int("123456789" * 9) % 10**precision}
    return ("NaN", *(shifted(number) for number in sorted(numbers)))


NUMBERS = (
    Case("boolean", ("true", "false")),
    Case("smallint", ("-32768", "-1", "0", "1", "32767")),
    Case("integer", ("-2147483648", "-1", "0", "1", "2147483647")),
    Case("bigint", (str(INT64_MIN), "-1", "0", "1", str(INT64_MAX))),
    Case("real", ("NaN", "-Infinity", "Infinity", "-0", "0", "1e-45", "-1.1754944e-38", "3.4028235e38", "0.1")),
    Case(
        "double precision",
        (
            "NaN",
            "-Infinity",
            "Infinity",
            "-0",
            "0",
            "5e-324",
            "2.2250738585072014e-308",
            "1.7976931348623157e308",
            "0.1",
        ),
    ),
    *(
        Case(f"numeric({precision},{scale})", numeric_literals(precision, scale))
        for precision, scale in (
            *((1, 0), (3, 3), (12, 4), (18, 0), (18, 18), (19, 0), (19, 10), (20, 1), (38, 0), (38, 19), (38, 38)),
            *((39, 0), (39, 39), (50, 10), (57, 3), (76, 0), (76, 38), (76, 76), (77, 0), (100, 50), (1000, 5)),
        )
    ),
    Case("numeric(5,-2)", ("NaN", "0", "-9999900", "9999900", "100", "12300")),
    Case("numeric(3,5)", ("NaN", "0", "-0.00999", "0.00999", "0.00001")),
    Case(
        "numeric",
        (
            *("NaN", "-Infinity", "Infinity", "0", "0.000", "-0.10", "1.50", "1e100", "1e-100", "10000", "9999"),
            *("0.0001", "100000000", "12345.678900", "-1e-16383", "9" * 300 + "." + "1" * 300, "1" + "0" * 131071),
        ),
    ),
    Case("money", ("-92233720368547758.08", "92233720368547758.07", "0", "-0.01", "1234.56")),
    Case("oid", ("0", "1", "4294967295")),
    Case("xid", ("0", "3", "4294967295")),
    Case("xid8", ("0", "3", "18446744073709551615")),
    Case("cid", ("0", "4294967295")),
    Case("tid", ("(0,0)", "(4294967295,65535)")),
    Case("pg_lsn", ("0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF")),
    Case("int2vector", ("", "1", "-32768 0 32767")),
    Case("oidvector", ("", "0", "1 4294967295")),
)

TEXTS = (
    Case("text", ODD_TEXT),
    Case("character varying", ODD_TEXT),
    Case("character varying(7)", ("", " ", "1234567", "äöüäöüä", "世界🌍", "ab     ", "it's")),
    Case("character(5)", ("", "a", "ab   ", "abcde", "äöü世🌍", "'\"\\,", "\n")),
    Case("character(1)", ("", "a", "🌍")),
    Case("bpchar", ("", "a  ", "  a", "x" * 300)),
    Case('"char"', ("", "a", "'", "\\", " ", "\\351", "\\200", "\\377")),
    Case("name", ("", "pg_class", "n" * 63, "ü" * 31, "a b", "it's")),
    Case("bytea", ("", "\\x00", "\\xff00ff", "\\x" + bytes(range(256)).hex(), "\\x5c", "\\x2c7b7d22")),
    Case(
        "json",
        ("null", ' {"b": 1,  "b": [1.50, null]} ', '"\\u0000 \\ud83c\\udf0d"', "1e1000", '"it\'s \\\\ \\""', "[]"),
    ),
    Case(
        "jsonb",
        ("null", '{"b": 1, "a": [1.50, null, true]}', '"🌍"', "1e100", '"it\'s \\\\ \\" \\n"', "[]", "{}", '""'),
    ),
    Case("jsonpath", ('$."a"[*] ? (@ > 1.50)', "strict $", '$."it\'s \\" 🌍"', "lax $.**{2 to last}", "-$.a")),
    Case(
        "tsvector",
        ("", "'fat':2 'rat':3", "'it''s':1A,2B,16383 'a\\\\b' ' ' ':'", "'🌍':1C", "'" + "x" * 2046 + "'"),
    ),
    Case("tsquery", ("", "'fat' & ('rat' | !'cat':*AB)", "'it''s' <-> 'a\\\\b' <7> '🌍'", "!!'x'")),
    Case("refcursor", ("", "it's")),
    Case(
        "uuid",
        (
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
    ),
)

DATES = (
    "-infinity",
    "infinity",
    "4714-11-24 BC",
    "0001-12-31 BC",
    "0001-01-01",
    "1969-12-31",
    "1970-01-01",
    "2000-02-29",
)
TIMESTAMPS = (
    "-infinity",
    "infinity",
    "4714-11-24 00:00:00 BC",
    "0001-12-31 23:59:59.999999 BC",
    "1969-12-31 23:59:59.999999",
    "1970-01-01 00:00:00",
    "1999-12-31 23:59:59.5",
    "2000-01-01 00:00:00",
    "2016-12-31 23:59:60",
    "294246-12-31 23:59:59",
    "294247-01-10 04:00:54",
    "294276-12-31 23:59:59",
)
# Around those that cannot cross, and the last one that there is.
LATE_TIMESTAMPS = ("294247-01-10 04:00:54.775806", "294247-01-10 04:00:54.775809", "294276-12-31 23:59:59.999999")
TIMES_OF_DAY = ("00:00:00", "00:00:00.000001", "12:34:56.789012", "23:59:59.999999", "23:59:60", "24:00:00")
INTERVALS = (
    "-infinity",
    "infinity",
    "0",
    "1 year 2 mons -3 days 04:05:06.000007",
    "-1 mon +1 day -00:00:00.000001",
    "178956970 years 7 mons",
    "-178956970 years -8 mons",
    "2147483647 days",
    "-2147483648 days",
    "2562047:47:16",
    "-2562047:47:16",
)
# The ends of what nanoseconds in 64 bits hold.
LONGEST_INTERVALS = ("2562047:47:16.854775", "-2562047:47:16.854775")

TIMES = (
    Case("date", (*DATES, "5874897-12-31")),
    *(Case(f"timestamp({p}) without time zone", TIMESTAMPS) for p in (0, 3)),
    *(Case(f"timestamp{p} without time zone", TIMESTAMPS + LATE_TIMESTAMPS) for p in ("", "(6)")),
    *(Case(f"timestamp({p}) with time zone", TIMESTAMPS) for p in (0, 5)),
    Case(
        "timestamptz", ("2024-03-31 02:30:00 Europe/Berlin", "1890-01-01 00:00:00 Europe/Amsterdam", *LATE_TIMESTAMPS)
    ),
    *(Case(f"time({p})", TIMES_OF_DAY) for p in range(7)),
    Case("time", TIMES_OF_DAY),
    *(
        Case(f"time({p}) with time zone", ("04:05:06.789012+02", "24:00:00-15:59:59", "00:00:00+15:59:59"))
        for p in (0, 3)
    ),
    Case("timetz", ("04:05:06.789012+02:30", "24:00:00-15:59", "23:59:60+00", "12:00:00+01:02:03")),
    *(Case(f"interval{fields}", INTERVALS + LONGEST_INTERVALS) for fields in ("", "(6)")),
    *(
        Case(f"interval{fields}", INTERVALS)
        for fields in (
            *("(0)", "(3)", " year", " month", " day", " hour", " minute", " second", " second(2)"),
            *(" year to month", " day to hour", " day to minute", " day to second", " day to second(1)"),
            *(" hour to minute", " hour to second(4)", " minute to second"),
        )
    ),
)

NETWORK_AND_BITS = (
    Case(
        "inet",
        ("0.0.0.0/0", "192.168.0.1", "192.168.0.1/24", "255.255.255.255", "::", "::ffff:1.2.3.4/120", "fe80::1/64"),
    ),
    Case("cidr", ("0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/32", "1.2.3.4/32")),
    Case("macaddr", ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "08:00:2b:01:02:03")),
    Case("macaddr8", ("00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff", "08:00:2b:ff:fe:01:02:03")),
    Case("bit(1)", ("0", "1")),
    Case("bit(9)", ("000000000", "111111111", "100000001")),
    Case('"bit"', ("", "1", "10101", "0" * 100)),
    Case("bit varying", ("", "0", "10101", "1" * 1000)),
    Case("bit varying(7)", ("", "0", "1111111")),
    Case("txid_snapshot", ("1:1:", "10:20:10,14,15")),
    Case("pg_snapshot", ("1:1:", "10:20:10,14,15")),
)

SHAPES = (
    Case("point", ("(0,0)", "(-0,1e-300)", "(Infinity,-Infinity)", "(NaN,0.1)")),
    Case("lseg", ("[(0,0),(0.1,-0)]", "[(1e300,-1e300),(Infinity,NaN)]")),
    Case("box", ("(1,1),(0,0)", "(0.1,Infinity),(-Infinity,-0)", "(1e300,1e-300),(1e-300,-5)")),
    Case("path", ("((0,0),(1,1),(2,0.1))", "[(0,0),(1,1)]", "[(NaN,Infinity)]")),
    Case("polygon", ("((0,0))", "((0,0),(1,1),(1,0.1))", "((-Infinity,0),(1e300,1),(1,0))")),
    Case("circle", ("<(0,0),0>", "<(0.1,-0),1e300>", "<(NaN,1),Infinity>")),
    Case("line", ("{1,-1,0}", "{0.1,Infinity,1e-300}")),
)

RANGES = (
    Case("int4range", ("empty", "(,)", "[1,5)", "(,2147483647)", "[-2147483648,)")),
    Case("int8range", ("empty", "(,)", f"[{INT64_MIN},{INT64_MAX})")),
    Case("numrange", ("empty", "(,)", "[1.50,1.500]", "(-Infinity,NaN]", "(1e-50,1e50)")),
    Case("tsrange", ("empty", "[-infinity,infinity]", '("4714-11-24 00:00:00 BC","294276-12-31 23:59:59.999999"]')),
    Case("tstzrange", ("empty", "(,)", '["1890-01-01 00:00:00 Europe/Amsterdam",infinity)')),
    Case("daterange", ("empty", '["4714-11-24 BC",5874897-12-31)', "[-infinity,infinity)", "(,2000-01-01)")),
    Case("int4multirange", ("{}", "{(,)}", "{[1,5),[7,9)}")),
    Case("int8multirange", ("{}", f"{{[{INT64_MIN},0),[1,{INT64_MAX})}}")),
    Case("nummultirange", ("{}", "{[1.50,1.500],(2,NaN)}")),
    Case("tsmultirange", ("{}", "{[-infinity,0001-01-01),[2000-01-01,infinity]}")),
    Case("tstzmultirange", ("{}", '{["2024-01-01 00:00:00+02","2024-01-02 00:00:00.000001+00")}')),
    Case("datemultirange", ("{}", "{[2000-01-01,2000-02-01),[2001-01-01,infinity)}")),
)

# Of things that every database has under the same number.
OBJECTS = (
    Case("regclass", ("-", "pg_catalog.pg_class", "4294967290")),
    Case("regcollation", ("-", '"C"', "4294967290")),
    Case("regconfig", ("-", "pg_catalog.english", "4294967290")),
    Case("regdictionary", ("-", "pg_catalog.simple", "4294967290")),
    Case("regnamespace", ("-", "pg_catalog", "4294967290")),
    Case("regoper", ("0", "pg_catalog.||/", "4294967290")),
    Case("regoperator", ("0", "pg_catalog.+(integer,bigint)", "-(NONE,integer)", "4294967290")),
    Case("regproc", ("-", "pg_catalog.now", "4294967290")),
    Case("regprocedure", ("-", "pg_catalog.abs(numeric)", "4294967290")),
    Case("regrole", ("-", "postgres", "4294967290")),
    Case("regtype", ("-", "integer", "timestamp with time zone", "character varying[]", '"char"', "4294967290")),
    Case("aclitem", ("=r/postgres", "postgres=arwdDxt/postgres", "etl=r*/postgres")),
)

FAMILIES: dict[str, tuple[Case, ...]] = {
    "numbers": NUMBERS,
    "texts": TEXTS,
    "times": TIMES,
    "network": NETWORK_AND_BITS,
    "shapes": SHAPES,
    "ranges": RANGES,
    "objects": OBJECTS,
}

EVERY_CASE = tuple(case for cases in FAMILIES.values() for case in cases)

WITHOUT_INPUT = {
    "gtsvector": "what a GiST index keeps of a tsvector",
    "pg_brin_bloom_summary": "what a BRIN index keeps",
    "pg_brin_minmax_multi_summary": "what a BRIN index keeps",
    "pg_dependencies": "extended statistics",
    "pg_mcv_list": "extended statistics",
    "pg_ndistinct": "extended statistics",
    "pg_node_tree": "parsed expressions",
    "xml": "needs a server with libxml: test_extensions.py",
}
"""Types that this server has no input function for that works. A column of them can be NULL only."""
