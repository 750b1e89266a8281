"""Change data capture: this engine beside PostgreSQL's own subscription and pg_recvlogical, on one server.

changes.py       the table of five columns, and what happens to it
ways.py          who applies, or only reads, these changes
rounds.py        the rounds: everybody finds the same slot, at the same position, and the same destination
subscription.py  a program: lets a subscription catch up, and tells how long that took
catching_up.py   a program: a run of this engine, up to where the changes end
decoding.py      a program: this engine's source alone, whose batches nobody takes
tail.py          a program: how long a commit takes from the source to the destination while a tail runs
"""
