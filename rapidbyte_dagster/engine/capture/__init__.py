"""Change data capture: the streams of a replication slot, loaded once and then followed.

run_slot          one run, from what is missing to where the log ends           runner.py
  Standing          how far each stream has come, by its destination            standing.py
  lost_changes      whether the slot still has what it needs                    continuity.py
  CaptureAttempt    source and destination at work                              attempt.py
    CaptureHost, ApplyHost   what each is offered                               hosts.py
    CaptureLedger            what was emitted, and what of it is committed      ledger.py
    ChangeStreams            the messages of several streams in one channel     changes.py
setup_slot, …     slot and publication: made, looked at, dropped                slots.py
verify            source and destination held against each other                reconciliation.py
"""

from rapidbyte_dagster.engine.capture.runner import SlotResult, run_slot

__all__ = ["SlotResult", "run_slot"]
