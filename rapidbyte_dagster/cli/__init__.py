"""The `rapidbyte` command."""

from rapidbyte_dagster.cli.main import main

__all__ = ["main"]
