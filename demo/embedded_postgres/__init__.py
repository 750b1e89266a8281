"""A real PostgreSQL server from pip, for the demo, the tests and the benchmarks.

account.py        who it runs as: PostgreSQL refuses to run as root
installation.py   where its programs are
server.py         EmbeddedPostgres: initdb, start, stop, crash
supervisor.py     the process between us and the server, which ends the server when we are gone
"""

from demo.embedded_postgres.installation import Installation
from demo.embedded_postgres.server import EmbeddedPostgres, ServerFailed

__all__ = ["EmbeddedPostgres", "Installation", "ServerFailed"]
