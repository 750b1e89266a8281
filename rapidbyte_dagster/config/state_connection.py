"""The connection string of a PostgreSQL state store: parsed by libpq's own rules, and kept from being shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rapidbyte_dagster.config.connector_config import missing_variables
from rapidbyte_dagster.config.problems import Key, Origin, Problem, raise_problems
from rapidbyte_dagster.config.secrets import labels
from rapidbyte_dagster.config.substitution import expand, has_reference, references, without_references

CONNECTION_KEY: Key = ("state", "connection")
_PASSWORDS = ("password", "sslpassword", "oauth_client_secret")


@dataclass(frozen=True, slots=True)
class StateConnection:
    """Where a PostgreSQL state store is."""

    parameters: Mapping[str, str] = field(repr=False)
    """libpq's, by their names; those that the text leaves out are libpq's to choose."""
    variables: tuple[tuple[str, str], ...] = field(repr=False)
    """Name and value of each variable of the text."""
    passwords: frozenset[str] = field(repr=False)
    """Values that are secret wherever they stand."""
    hidden: frozenset[str] = field(repr=False)
    """Every value that the file does not show: parts of what a variable held. Host, user and database are ordinary
    words, so that only what the store itself says is searched for them."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """Every text that what the store says must not show, with what is shown instead."""
        return labels(self.variables, self.passwords | self.hidden)


def resolve_connection(origin: Origin, text: str, environ: Mapping[str, str]) -> StateConnection:
    """Raises ConfigError that names every missing variable, or says that `text` expands to no connection string."""
    raise_problems(origin.file, missing_variables(origin, [(CONNECTION_KEY, text)], environ))
    connection, problems = resolved_connection(origin, text, environ)
    raise_problems(origin.file, problems)
    assert connection is not None
    return connection


def resolved_connection(
    origin: Origin, text: str, environ: Mapping[str, str]
) -> tuple[StateConnection | None, list[Problem]]:
    """As `resolve_connection`, but hands the problems over; every variable must be there."""
    # Loaded here: a code location must not pay for a database driver.
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(expand(text, environ)).items()}
    except ProgrammingError:
        # Its text quotes what it stumbled over, which may be a piece of the password.
        parameters = {}
    if not parameters:
        verb = "expands to" if has_reference(text) else "is"
        allowed = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE (special characters as %XX), or KEY='VALUE' pairs"
        return None, [origin.problem(CONNECTION_KEY, f"{verb} no connection string; allowed: {allowed}")]
    shown = without_references(text)
    passwords = frozenset(parameters[name] for name in _PASSWORDS if name in parameters)
    hidden = frozenset(value for value in parameters.values() if value not in shown)
    variables = tuple(
        (reference.name, environ[reference.name]) for reference in references(text) if reference.is_from(environ)
    )
    return StateConnection(parameters, variables, passwords, hidden), []
