"""The demo: a small shop in an embedded PostgreSQL, copied by Dagster. Run it with `make demo`."""
