"""Cursors as people read them. What is in one is its source connector's own; nothing is decided by this."""

from __future__ import annotations

import json
from typing import Any

# Characters of one text, and items of one list or object: a cursor that remembers rows is up to a megabyte.
TEXT_LIMIT = 200
ITEMS_LIMIT = 20
_DEPTH_LIMIT = 8


def cursor_text(cursor: Any) -> str:
    """One short line: `id = 7` where the cursor names its field and value, `lsn = 0/16B3748` where it is a place in a
    write-ahead log, else its JSON."""
    if isinstance(cursor, dict) and isinstance(cursor.get("field"), str) and "value" in cursor:
        value = cursor["value"]
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return f"{_cut(cursor['field'])} = {_cut(shown)}"
    if isinstance(cursor, dict) and isinstance(cursor.get("lsn"), str):
        return f"lsn = {_cut(cursor['lsn'])}"
    return "none" if cursor is None else _cut(json.dumps(cursor, ensure_ascii=False))


def shortened(cursor: Any) -> Any:
    """`cursor` of the same shape, with its long texts cut and long lists ended by how many items are not shown."""
    return _shortened(cursor, _DEPTH_LIMIT)


def _shortened(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, (list, dict)) and depth == 0:
        return "…"
    if isinstance(value, list):
        kept = [_shortened(item, depth - 1) for item in value[:ITEMS_LIMIT]]
        return kept if len(value) <= ITEMS_LIMIT else [*kept, f"… {len(value) - ITEMS_LIMIT:,} more"]
    if isinstance(value, dict):
        items = list(value.items())
        kept_items = {_cut(key): _shortened(item, depth - 1) for key, item in items[:ITEMS_LIMIT]}
        return kept_items if len(items) <= ITEMS_LIMIT else {**kept_items, "…": f"{len(items) - ITEMS_LIMIT:,} more"}
    return value


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}… ({len(text):,} characters)"
