"""Columns whose type changes. `new` has, where there is one, a value that the type before does not hold."""

from __future__ import annotations

from tests.evolution.columns import Column, Three
from tests.evolution.effects import Difference


def lossless(before: str, after: str, old: Three, new: Three, cast: Three, widened: Three | None = None) -> Column:
    return Column("c", Difference.LOSSLESS, before, after, old, new, cast, widened)


def other_type(before: str, after: str, old: Three, new: Three, cast: Three) -> Column:
    return Column("c", Difference.OTHER_TYPE, before, after, old, new, cast)


def held(before: str, after: str, old: Three, new: Three) -> Column:
    return Column("c", Difference.HELD_TYPE, before, after, old, new)


LOSSLESS = (
    lossless("smallint", "integer", ("1", "-32768", None), ("1", "32768", "32767"), ("1", None, "32767")),
    lossless("integer", "bigint", ("1", "-7", None), ("1", "2147483648", None), ("1", None, None)),
    lossless("smallint", "bigint", ("1", "-7", None), ("1", "2147483648", None), ("1", None, None)),
    lossless("integer", "numeric", ("1", "-7", None), ("1", "1.50", "8"), ("1", None, "8")),
    lossless("bigint", "numeric", ("1", "-9223372036854775808", None), ("1", "NaN", "8"), ("1", None, "8")),
    lossless("real", "double precision", ("0.5", "Infinity", "NaN"), ("0.5", "1e+300", "-0"), ("0.5", None, "-0")),
    lossless(
        "character varying(5)",
        "character varying(10)",
        ("12345", "", None),
        ("12345", "1234567890", "ü"),
        ("12345", None, "ü"),
    ),
    lossless("character varying(5)", "text", ("12345", "", None), ("12345", "123456", None), ("12345", None, None)),
    lossless("character(3)", "text", ("abc", "xyz", None), ("abc", "abcd", "def"), ("abc", None, "def")),
    lossless(
        "numeric(10,2)",
        "numeric(12,2)",
        ("1.50", "-99999999.99", None),
        ("1.50", "9999999999.99", "0.00"),
        ("1.50", None, "0.00"),
    ),
    lossless(
        "numeric(12,2)",
        "numeric",
        ("1.50", "-7.00", None),
        ("1.50", "100000000000000000000", "0.00"),
        ("1.50", None, "0.00"),
    ),
    lossless(
        "numeric(10,2)",
        "numeric(12,4)",
        ("1.50", "-7.00", None),
        ("1.5000", "-7.2345", "0.0000"),
        ("1.50", "-7.23", "0.00"),
        widened=("1.5000", "-7.0000", None),
    ),
    lossless("integer", "double precision", ("1", "-7", None), ("1", "1.5", "3000000000"), ("1", None, None)),
    lossless(
        "uuid",
        "text",
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None, None),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", "abc", None),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12", None, None),
    ),
    lossless("integer", "text", ("1", "-7", None), ("1", "abc", "08"), ("1", None, "8")),
    lossless(
        "date",
        "timestamp without time zone",
        ("2024-01-02", "infinity", "0044-03-15 BC"),
        ("2024-01-02 00:00:00", "2024-02-03 04:05:06.789", None),
        ("2024-01-02", "2024-02-03", None),
        widened=("2024-01-02 00:00:00", "infinity", "0044-03-15 00:00:00 BC"),
    ),
    lossless("integer[]", "bigint[]", ("{1,NULL}", "{}", None), ("{1}", "{1,2147483648}", None), ("{1}", None, None)),
    lossless(
        "timestamp(3) without time zone",
        "timestamp without time zone",
        ("2024-01-02 03:04:05.123", "-infinity", None),
        ("2024-01-02 03:04:05.123456", "infinity", None),
        ("2024-01-02 03:04:05.123", "infinity", None),
    ),
)

MORE_LOSSLESS = (
    lossless("smallint", "real", ("1", "-7", None), ("1", "1.5", None), ("1", None, None)),
    lossless("smallint", "double precision", ("1", "-7", None), ("1", "1.5", None), ("1", None, None)),
    lossless(
        "smallint",
        "numeric(7,2)",
        ("1", "-32768", None),
        ("1.00", "1.50", None),
        (None, None, None),
        widened=("1.00", "-32768.00", None),
    ),
    lossless("integer", "numeric(10,0)", ("1", "-2147483648", None), ("1", "9999999999", None), ("1", None, None)),
    lossless("bigint", "numeric(19,0)", ("1", "9223372036854775807", None), ("1", "9" * 19, None), ("1", None, None)),
    lossless(
        "character varying(5)", "character varying", ("12345", "", None), ("1", "123456", None), ("1", None, None)
    ),
    lossless(
        "character(3)",
        "character(5)",
        ("abc", "x  ", None),
        ("ab   ", "abcde", None),
        ("ab ", None, None),
        ("abc  ", "x    ", None),
    ),
    lossless("character(3)", "character varying(3)", ("abc", "xyz", None), ("ab", "xyz", None), ("ab ", "xyz", None)),
    lossless(
        "timestamp(0) with time zone",
        "timestamp(6) with time zone",
        ("2024-01-02 03:04:05+00", None, None),
        *[("2024-01-02 03:04:05+00", None, "infinity")] * 2,
    ),
    lossless(
        "time(0) without time zone",
        "time without time zone",
        ("03:04:05", "24:00:00", None),
        ("03:04:05.6", None, None),
        ("03:04:06", None, None),
    ),
    lossless(
        "time(0) with time zone",
        "time with time zone",
        ("03:04:05+02", None, None),
        ("03:04:05.6+02", None, None),
        ("03:04:06+02", None, None),
    ),
    lossless(
        "interval(0)",
        "interval",
        ("1 day 00:00:01", None, None),
        ("1 mon 00:00:01.6", None, None),
        ("1 mon 00:00:02", None, None),
    ),
    lossless("bit(3)", "bit varying(4)", ("101", "000", None), ("101", "1010", None), ("101", None, None)),
    lossless("bit varying(3)", "bit varying", ("101", "", None), ("1", "1010", None), ("1", None, None)),
    lossless(
        "cidr",
        "inet",
        ("10.0.0.0/8", None, None),
        ("10.0.0.0/8", "10.0.0.1", None),
        ("10.0.0.0/8", "10.0.0.1/32", None),
    ),
    lossless("jsonb", "text", ('{"a": 1}', "null", None), ('{"a": 1}', "{", None), ('{"a": 1}', None, None)),
    lossless("integer[]", "text", ("{1,NULL}", "{}", None), ("{1}", "1", None), ("{1}", None, None)),
    lossless("integer[]", "text[]", ("{1,NULL}", "{}", None), ("{1}", "{a}", None), ("{1}", None, None)),
    lossless(
        "character varying(3)[]",
        "character varying(5)[]",
        ("{abc}", "{}", None),
        ("{abc}", "{abcde}", None),
        ("{abc}", None, None),
    ),
)

FITTING = (
    other_type("bigint", "integer", ("1", "2147483648", None), ("1", "-7", None), ("1", "-7", None)),
    other_type("text", "integer", ("abc", "1", None), ("1", "-7", None), ("1", "-7", None)),
    other_type("text", "uuid", ("abc", "1", None), *[("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None, None)] * 2),
    other_type(
        "numeric(12,4)",
        "numeric(10,2)",
        ("1.2345", "0.0000", None),
        ("1.50", "-7.00", None),
        ("1.5000", "-7.0000", None),
    ),
    other_type(
        "date",
        "timestamp with time zone",
        ("2024-01-02", "infinity", None),
        ("2024-01-02 00:00:00+00", "2024-02-03 04:05:06+00", None),
        ("2024-01-02", "2024-02-03", None),
    ),
    other_type("jsonb", "integer", ('{"a": 1}', "1", None), ("1", "-7", None), ("1", "-7", None)),
    other_type("bigint[]", "integer[]", ("{1}", "{2147483648}", None), ("{1}", "{}", None), ("{1}", "{}", None)),
)

UNFITTING = (
    other_type("integer", "jsonb", ("1", "2", None), ("1", '{"a": 1}', "8"), ("1", None, "8")),
    other_type(
        "uuid", "integer", ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None, None), ("1", None, None), (None, None, None)
    ),
    other_type("boolean", "integer", ("t", "f", None), ("1", "0", "2"), ("t", "f", None)),
    other_type("bigint", "double precision", ("1", "2", None), ("1", "1.5", "1e+20"), ("1", None, None)),
    other_type("integer", "boolean", ("1", "0", None), ("t", "f", None), (None, None, None)),
    other_type("inet", "bytea", ("10.0.0.1", None, None), ("\\x01", None, None), (None, None, None)),
    other_type(
        "timestamp without time zone",
        "bigint",
        ("2024-01-02 00:00:00", None, None),
        ("1", None, None),
        (None, None, None),
    ),
    other_type(
        "numeric(10,2)", "numeric(14,1)", ("1.50", "2.00", None), ("1.5", "1234567890123.4", None), ("1.50", None, None)
    ),
    other_type("integer[]", "integer", ("{1}", "{}", None), ("1", None, None), (None, None, None)),
    other_type("name", "character varying(80)", ("a", "b", None), ("x" * 63, "y" * 64, None), ("x" * 63, None, None)),
    other_type('"char"', "character varying(3)", ("a", "b", None), ("c", "de", None), ("c", None, None)),
    other_type("bit(3)", "bit(4)", ("101", "000", None), ("1010", None, None), (None, None, None)),
    other_type("integer", "inet", ("1", "2", None), ("10.0.0.1", None, None), (None, None, None)),
    other_type("integer", "numeric[]", ("1", "2", None), ("{1.5}", None, None), (None, None, None)),
)

HELD = (
    held("character varying(10)", "character varying(3)", ("1234567890", "", None), ("123", "ü", None)),
    held("text", "character varying(3)", ("1234567890", "", None), ("123", "ü", None)),
    held("numeric", "numeric(10,2)", ("0.00000000000000000001", "NaN", None), ("1.50", "-7.00", None)),
)

NOT_NULL_TYPE = Column(
    "c",
    Difference.OTHER_TYPE_NOT_NULL,
    "integer NOT NULL",
    "jsonb NOT NULL",
    ("1", "2", "3"),
    ("1", "2", "8"),
)
