"""How Dagster runs the steps of a pipeline: what its file may say of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from rapidbyte_dagster.config import OpOptions
from rapidbyte_dagster.config.op_options import Backoff, Jitter
from tests.unit.config.pipeline_files import changed, load_text, only_problem

STREAM = "      columns: [id, email]\n"
"""Line 13: where the tests put the first stream's options."""


def written(stream: str, pipeline: str | None = None) -> str:
    after = "" if pipeline is None else f"dagster: {{{pipeline}}}\n"
    return changed((STREAM, f"      dagster: {{{stream}}}\n"), after=after)


def test_a_streams_options_come_before_its_pipelines_and_their_tags_are_put_together(tmp_path: Path) -> None:
    k8s = "dagster-k8s/config: {container_config: {resources: {limits: {memory: 2Gi, cpu: 1}}}}"
    pipeline = load_text(
        tmp_path,
        written(
            "retry_policy: {max_retries: 5, delay: 0.5, backoff: exponential, jitter: plus_minus}, op_tags: {tier: 1}",
            f"retry_policy: {{max_retries: 2}}, op_tags: {{tier: 2, {k8s}}}, pool: warehouse",
        ),
    )
    users, orders = (pipeline.op_options(stream) for stream in pipeline.streams)
    policy = users.retry_policy
    assert policy is not None
    assert (policy.max_retries, policy.delay) == (5, 0.5)
    assert (policy.backoff, policy.jitter) == (Backoff.EXPONENTIAL, Jitter.PLUS_MINUS)
    config = {"container_config": {"resources": {"limits": {"memory": "2Gi", "cpu": 1}}}}
    assert users.op_tags == {"tier": 1, "dagster-k8s/config": config}
    assert users.pool == "warehouse"
    assert orders.retry_policy is not None
    assert (orders.retry_policy.max_retries, orders.retry_policy.delay) == (2, None)
    assert orders.op_tags == {"tier": 2, "dagster-k8s/config": config}


def test_what_nobody_says_is_left_out(tmp_path: Path) -> None:
    pipeline = load_text(tmp_path, changed())
    assert pipeline.op_options(pipeline.streams[0]) == OpOptions()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("retry_policy: {}", "retry_policy.max_retries: required, but missing"),
        ("retry_policy: 3", "retry_policy: found the number 3; allowed: a mapping of keys"),
        ("retry_policy: {max_retries: true}", "retry_policy.max_retries: found the truth value true; allowed: a whole"),
        ("retry_policy: {max_retries: -1}", "retry_policy.max_retries: found the number -1; allowed: 0 or more"),
        ("retry_policy: {max_retries: 101}", "retry_policy.max_retries: found the number 101; allowed: 100 or less"),
        (
            "retry_policy: {max_retries: 1, delay: 0}",
            "retry_policy.delay: found the number 0; allowed: a number of sec",
        ),
        ("retry_policy: {max_retries: 1, delay: 5m}", "retry_policy.delay: found '5m'; allowed: a number of seconds"),
        ("retry_policy: {max_retries: 1, delay: .nan}", "retry_policy.delay: found the number nan; allowed: a number"),
        ("retry_policy: {max_retries: 1, delay: 1, backoff: expo}", "retry_policy.backoff: found 'expo'; allowed: lin"),
        ("retry_policy: {max_retries: 1, delay: 1, jitter: some}", "retry_policy.jitter: found 'some'; allowed: full"),
        ("retry_policy: {max_retries: 1, backoff: linear}", "retry_policy.backoff: changes `delay`, which is missing"),
        ("retry_policy: {max_retries: 1, jitter: full}", "retry_policy.jitter: changes `delay`, which is missing"),
        (
            "retry_policy: {max_retries: 0, delay: 1}",
            "retry_policy.delay: there is nothing to wait for where max_retri",
        ),
        ("retry_policy: {max_retries: 1, delays: 1}", "retry_policy.delays: unknown key; allowed: max_retries, delay,"),
        ("op_tags: [a]", "op_tags: found a list; allowed: a mapping"),
        ("op_tags: {a b: c}", "op_tags.a b: found 'a b'; allowed: tag names"),
        ("op_tags: {a: }", "op_tags.a: found nothing (null); allowed: a text, a finite number"),
        ("op_tags: {a: [1, {b: .inf}]}", "op_tags.a: found a list; allowed: a text, a finite number"),
        ("op_tags: {a: '${TIER}'}", "op_tags.a: must be known when the file loads, so it cannot hold ${…}"),
        (
            "op_tags: {rapidbyte/pipeline: x}",
            "op_tags.rapidbyte/pipeline: found 'rapidbyte/pipeline'; allowed: tags th",
        ),
        (
            "op_tags: {dagster/concurrency_key: x}",
            "op_tags.dagster/concurrency_key: found 'dagster/concurrency_key'; al",
        ),
        ("pool: a b", "pool: found 'a b'; allowed: a pool's name, without spaces"),
        ("pool: ''", "pool: found ''; allowed: a pool's name, without spaces"),
        ("pools: x", "pools: unknown key; allowed: "),
    ],
)
def test_what_does_not_fit_is_told_with_its_line_and_what_is_allowed(tmp_path: Path, options: str, told: str) -> None:
    assert only_problem(tmp_path, written(options)).startswith(f"shop.yaml:13: source.streams[0].dagster.{told}")
    assert only_problem(tmp_path, changed(after=f"dagster: {{{options}}}\n")).startswith(
        f"shop.yaml:23: dagster.{told}"
    )


def test_how_assets_look_is_not_the_pipelines_to_say(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(after="dagster: {group: crm}\n"))
    assert problem == "shop.yaml:23: dagster.group: unknown key; allowed: retry_policy, op_tags, pool"
