"""What the materialisation of a stream's dead letters tells: how many, of what kind, and the newest."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from rapidbyte_dagster.assets import markdown
from rapidbyte_dagster.assets.dead_letter_figures import last_figures

if TYPE_CHECKING:
    from rapidbyte_dagster.assets.dead_letters import DeadLetters, LetterSelection
    from rapidbyte_dagster.state import DeadLetterCounts, DeadLetterPreview, StateStore

PREVIEW_ROWS = 10

# Of one cell of the preview: Dagster keeps and shows all of it, and a row may be 100 MB.
_CELL_CHARACTERS = 200

_PREVIEW_HEADER = ("failed at", "category", "message", "column", "row")
_NONE = "There are none."


def dead_letter_metadata(state: StateStore, letters: DeadLetters, selection: LetterSelection) -> dict[str, Any]:
    """Of `letters` as the store holds them now. What counts is a whole number, and there with nothing too: it plots.

    `selection` is what the preview is taken from.
    """
    pipeline, stream = letters.pipeline.name, letters.stream.name
    total = state.dead_letter_counts(pipeline, stream)
    new = state.dead_letter_counts(pipeline, stream, letters.run_id) if letters.run_id is not None else None
    new_categories = new.by_category if new is not None else {}
    metadata: dict[str, Any] = {
        "dead_letters": total.total,
        "new_dead_letters": new.total if new is not None else 0,
        "waiting_dead_letters": total.waiting,
    }
    for category, count in total.by_category.items():
        metadata[f"dead_letters_{category}"] = count
        metadata[f"new_dead_letters_{category}"] = new_categories.get(category, 0)
    metadata["categories"] = dg.MetadataValue.md(_categories(total, new))
    newest: list[DeadLetterPreview] = []
    run_id = _run_shown(state, letters) if selection == "run" else None
    if selection == "all" or run_id is not None:
        newest = state.dead_letter_previews(
            pipeline, stream, run_id, limit=PREVIEW_ROWS, characters=_CELL_CHARACTERS + 1
        )
    metadata["newest"] = dg.MetadataValue.md(_preview(newest))
    return metadata


def _run_shown(state: StateStore, letters: DeadLetters) -> str | None:
    """The run that has just moved rows, else the last one that did."""
    if letters.run_id is not None:
        return letters.run_id
    last = last_figures(state, letters.pipeline, letters.stream)
    return last.run_id if last is not None else None


def _categories(total: DeadLetterCounts, new: DeadLetterCounts | None) -> str:
    if not total.total:
        return _NONE
    new_categories = new.by_category if new is not None else {}
    rows = (
        [markdown.code(category), f"{new_categories.get(category, 0):,}", f"{count:,}"]
        for category, count in total.by_category.items()
    )
    return markdown.table(("category", "of this run", "in all"), rows)


def _preview(newest: list[DeadLetterPreview]) -> str:
    if not newest:
        return _NONE
    rows = (
        [
            markdown.time(datetime.fromisoformat(letter.failed_at)),
            markdown.code(letter.error_category),
            markdown.plain(_cut(letter.error_message)),
            markdown.code(letter.column_name or ""),
            markdown.code(_cut(letter.record_json, letter.record_characters)),
        ]
        for letter in newest
    )
    return markdown.table(_PREVIEW_HEADER, rows)


def _cut(text: str, characters: int | None = None) -> str:
    """`text`, or its beginning, and how many characters it has where that is known."""
    if len(text) <= _CELL_CHARACTERS:
        return text
    whole = f" ({characters:,} characters)" if characters is not None else ""
    return f"{text[:_CELL_CHARACTERS]}…{whole}"
