"""The benchmark: this engine beside `psql | psql` and its peers, in one session on one server. Run: `make bench`.

events.py       the table, its rows, and the hash of its content
ways.py         the ways to copy it: each a command of its own process
measured.py     wall time, CPU and peak memory of one process
session.py      the rounds: prepare, run, verify
definitions.py  how long a code location of 100 pipelines takes to load
report.py       medians, ratios, goals; the table and the JSON
peers/          the programs that run the peers
"""
