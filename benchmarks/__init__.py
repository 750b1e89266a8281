"""The benchmark: this engine beside psql by hand and its peers, in one session on one server. Run: `make bench`.

scenarios/      what is moved: each names its ways, its baseline and its goals
scenario.py     what such a scenario consists of
events.py       the table, its rows, and the hash of its content
way.py          one way to move it: a command of its own process
engine.py       the ways through this engine
delayed.py      a proxy that makes the server's socket calls slow
by_hand.py      the ways in a shell with psql
peers/          the ways of other tools, and the programs that run them
destination.py  what a way finds at the destination, the same before each of its runs
measured.py     wall time, CPU and peak memory of one process
session.py      the rounds: restore, run, verify
wide.py         a pipeline of 200 streams, loaded, shown and run: a program of its own
definitions.py  how long a code location of 100 pipelines takes to load
report.py       medians, ratios, goals; the tables and the JSON
"""
