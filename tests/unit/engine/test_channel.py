from __future__ import annotations

import threading
import time

import pytest

from rapidbyte_dagster.engine.channel import Channel
from rapidbyte_dagster.engine.letters import Letters
from rapidbyte_dagster.runtime import Barrier, End, Item, Message, StreamAborted


def _in_thread(target: object) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_items_come_out_in_the_order_they_went_in() -> None:
    channel = Channel(100)
    items: list[Item] = [Message(b"a"), Barrier(b"{}"), Message(b"b"), End()]
    for item in items:
        channel.put(item)
    assert [channel.take() for _ in items] == items


def test_the_end_stays_the_end() -> None:
    channel = Channel(100)
    channel.put(End())
    assert isinstance(channel.take(), End)
    assert isinstance(channel.take(), End)


def test_a_full_channel_makes_the_producer_wait_until_there_is_room() -> None:
    channel = Channel(10)
    channel.put(Message(b"12345678"))
    producer = _in_thread(lambda: channel.put(Message(b"123")))
    producer.join(0.1)
    assert producer.is_alive()
    channel.take()
    producer.join(5)
    assert not producer.is_alive()
    assert channel.put_wait_seconds > 0.05


def test_a_message_larger_than_the_bound_goes_alone() -> None:
    channel = Channel(10)
    channel.put(Message(b"x" * 1000))
    producer = _in_thread(lambda: channel.put(Message(b"1")))
    producer.join(0.1)
    assert producer.is_alive()
    assert channel.take() == Message(b"x" * 1000)
    producer.join(5)
    assert channel.take() == Message(b"1")


def test_an_abort_wakes_a_waiting_producer_and_a_waiting_consumer() -> None:
    for blocked in ("put", "take"):
        channel = Channel(1)
        if blocked == "put":
            channel.put(Message(b"full"))
        caught: list[BaseException] = []

        def wait(channel: Channel = channel, blocked: str = blocked, caught: list[BaseException] = caught) -> None:
            try:
                channel.put(Message(b"more")) if blocked == "put" else channel.take()
            except StreamAborted as error:
                caught.append(error)

        thread = _in_thread(wait)
        time.sleep(0.05)
        channel.abort()
        thread.join(5)
        assert len(caught) == 1


def test_an_aborted_channel_is_never_mistaken_for_one_that_ended() -> None:
    channel = Channel(100)
    channel.put(Message(b"a"))
    channel.put(End())
    channel.abort()
    with pytest.raises(StreamAborted):
        channel.take()
    with pytest.raises(StreamAborted):
        channel.put(End())


def test_a_barrier_with_a_large_cursor_counts_as_what_it_weighs() -> None:
    channel = Channel(10)
    channel.put(Barrier(b"12345678"))
    producer = _in_thread(lambda: channel.put(Message(b"123")))
    producer.join(0.1)
    assert producer.is_alive()
    channel.take()
    producer.join(5)
    assert not producer.is_alive()


def test_dead_letters_count_as_what_they_weigh() -> None:
    channel = Channel(10)
    channel.put(Letters((), sequence=1, size=8))
    producer = _in_thread(lambda: channel.put(Message(b"123")))
    producer.join(0.1)
    assert producer.is_alive()
    assert channel.take() == Letters((), sequence=1, size=8)
    producer.join(5)
    assert not producer.is_alive()
