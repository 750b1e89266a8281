"""What is wrong with keys and values: every problem with its line, key, what was found and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.pipeline_files import VALID, changed, load_text, only_problem, problems_in


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    text = changed(
        ('version: "1.0"', "version: 1.0"),
        ("pipeline: shop", "pipline: shop"),
        ("use: postgres", "use: postgress"),
        ("name: users", "nmae: users"),
        ("write_mode: replace", "write_mode: repalce"),
        ("write_mode: append", "write_mode: 3"),
        after="resources: {max_memory: lots, parallelism: 0}\n",
    )
    problems = problems_in(tmp_path, text)
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["shop.yaml:1", "version"],
        ["shop.yaml:1", "pipeline"],
        ["shop.yaml:2", "pipline"],
        ["shop.yaml:4", "source.use"],
        ["shop.yaml:12", "source.streams[0].name"],
        ["shop.yaml:12", "source.streams[0].nmae"],
        ["shop.yaml:17", "source.streams[1].write_mode"],
        ["shop.yaml:22", "destination.write_mode"],
        ["shop.yaml:23", "resources.parallelism"],
        ["shop.yaml:23", "resources.max_memory"],
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "meant"),
    [
        ("pipeline: shop", "pipline: shop", 2, "pipline", "pipeline"),
        ("destination:", "destinaton:", 19, "destinaton", "destination"),
        ("  streams:", "  stream:", 11, "source.stream", "streams"),
        ("columns:", "colums:", 13, "source.streams[0].colums", "columns"),
        ("columns:", "Columns:", 13, "source.streams[0].Columns", "columns"),
        ("primary_key:", "primary-key:", 18, "source.streams[1].primary-key", "primary_key"),
        ("database: shop", "databse: shop", 10, "source.config.databse", "database"),
        ("password:", "pasword:", 9, "source.config.pasword", "password"),
    ],
)
def test_an_unknown_key_tells_the_near_miss(
    tmp_path: Path, old: str, new: str, line: int, key: str, meant: str
) -> None:
    problems = problems_in(tmp_path, changed((old, new)))
    (problem,) = [problem for problem in problems if "unknown key" in problem]
    assert problem.startswith(f"shop.yaml:{line}: {key}: unknown key; allowed: ")
    assert problem.endswith(f"; did you mean {meant!r}?")


def test_a_key_in_the_wrong_section_tells_where_it_belongs(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(after="max_retries: 3\n"))
    assert problem.startswith("shop.yaml:23: max_retries: unknown key; ")
    assert problem.endswith("; it belongs in resources or retry_policy")


@pytest.mark.parametrize(
    ("old", "key"),
    [
        ('version: "1.0"\n', "version"),
        ("pipeline: shop\n", "pipeline"),
        ("  use: postgres\n", "source.use"),
        ("  write_mode: append\n", "destination.write_mode"),
        ("    user: etl\n", "source.config.user"),
        ("host: dw, ", "destination.config.host"),
    ],
)
def test_a_required_key_is_missed(tmp_path: Path, old: str, key: str) -> None:
    problem = only_problem(tmp_path, changed((old, "")))
    assert f": {key}: required, but missing" in problem
    assert problem.startswith("shop.yaml:")


@pytest.mark.parametrize("section", ["source", "destination"])
def test_a_missing_section_is_missed(tmp_path: Path, section: str) -> None:
    start = VALID.index(f"{section}:")
    end = VALID.index("destination:") if section == "source" else len(VALID)
    problem = only_problem(tmp_path, VALID[:start] + VALID[end:])
    assert problem == f"shop.yaml:1: {section}: required, but missing"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"1.0"', "1.0", 'shop.yaml:1: version: found the number 1.0; allowed: "1.0"'),
        ('"1.0"', '"2.0"', "shop.yaml:1: version: found '2.0'; allowed: \"1.0\""),
        ("pipeline: shop", "pipeline: Shop", "shop.yaml:2: pipeline: found 'Shop'; allowed: a lower-case letter"),
        ("pipeline: shop", "pipeline: 1shop", "shop.yaml:2: pipeline: found '1shop'"),
        ("pipeline: shop", f"pipeline: {'s' * 41}", "shop.yaml:2: pipeline: found 'sss"),
        ("pipeline: shop", "pipeline: [shop]", "shop.yaml:2: pipeline: found a list; allowed: a text"),
        (
            "pipeline: shop",
            "pipeline: 12",
            "shop.yaml:2: pipeline: found the number 12; allowed: a text (put it in quotes)",
        ),
        ("use: postgres", "use: ''", "shop.yaml:4: source.use: found ''; allowed: a text that is not empty"),
        (
            "write_mode: replace",
            "write_mode: true",
            "shop.yaml:17: source.streams[1].write_mode: found the truth value true",
        ),
        (
            "write_mode: append",
            "write_mode:",
            "shop.yaml:22: destination.write_mode: found nothing (null); allowed: append",
        ),
        ("columns: [id, email]", "columns: id", "shop.yaml:13: source.streams[0].columns: found 'id'; allowed: a list"),
        ("columns: [id, email]", "columns: []", "shop.yaml:13: source.streams[0].columns: found an empty list"),
        ("columns: [id, email]", "columns: [id, 5]", "shop.yaml:13: source.streams[0].columns[1]: found the number 5"),
        (
            "columns: [id, email]",
            "columns: [id, id]",
            "shop.yaml:13: source.streams[0].columns: found a list; allowed: each",
        ),
        (
            "table: sold",
            "table: ''",
            "shop.yaml:16: source.streams[1].table: found ''; allowed: a name of 1 to 63 bytes",
        ),
        ("table: sold", "table: _rapidbyte_dlq", "shop.yaml:16: source.streams[1].table: found '_rapidbyte_dlq'"),
        (
            "schema: sales",
            'schema: "a\\0b"',
            "shop.yaml:15: source.streams[1].schema: found 'a\\x00b'; allowed: a name without",
        ),
        ("name: users", f"name: {'ü' * 32}", "allowed: at most 63 bytes of UTF-8 (this one has 64)"),
        ("[id]", f"[{'k' * 64}]", "shop.yaml:18: source.streams[1].primary_key[0]: found 'kkk"),
    ],
)
def test_a_wrong_value_tells_what_was_found_and_what_is_allowed(tmp_path: Path, old: str, new: str, told: str) -> None:
    problem = only_problem(tmp_path, changed((old, new)))
    assert told in problem
    assert "; allowed: " in problem


def test_names_of_exactly_63_bytes_are_fine(tmp_path: Path) -> None:
    name = "ü" * 31 + "x"
    assert load_text(tmp_path, changed(("table: sold", f"table: {name}"))).stream("orders").table == name


def test_names_may_hold_any_case_blank_and_quote(tmp_path: Path) -> None:
    name = 'Order "Items"; drop'
    text = changed(("table: sold", f"table: '{name}'"))
    assert load_text(tmp_path, text).stream("orders").table == name


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("parallelism: many", "resources.parallelism: found 'many'; allowed: auto, or a whole number from 1 to 256"),
        ("parallelism: atuo", "did you mean 'auto'?"),
        ("parallelism: 0", "resources.parallelism: found the number 0"),
        ("parallelism: true", "resources.parallelism: found the truth value true"),
        ("max_memory: 12", "resources.max_memory: found the number 12; allowed: a size from 1mb to 4gb"),
        ("max_memory: 5gb", "resources.max_memory: found '5gb'"),
        ("max_memory: -1mb", "resources.max_memory: found '-1mb'; allowed: a size such as 64mb"),
        ("max_memory: 64 m", "resources.max_memory: found '64 m'"),
        ("max_memory: 1.5gb", "resources.max_memory: found '1.5gb'"),
        ("max_batch_bytes: 0", "resources.max_batch_bytes: found the number 0"),
        ("max_batch_bytes: 64mib", "resources.max_batch_bytes: found '64mib'"),
        ("max_batch_bytes: .inf", "resources.max_batch_bytes: found the number inf"),
        ("max_inflight_bytes: [1]", "resources.max_inflight_bytes: found a list"),
        ("checkpoint_interval_bytes: -1", "resources.checkpoint_interval_bytes: found the number -1"),
        (
            "checkpoint_interval_rows: 1.5",
            "resources.checkpoint_interval_rows: found the number 1.5; allowed: a whole number",
        ),
        (
            "checkpoint_interval_seconds: -1",
            "resources.checkpoint_interval_seconds: found the number -1; allowed: 0 or more",
        ),
        ("max_retries: '3'", "resources.max_retries: found '3'; allowed: a whole number"),
        ("max_retries: 101", "resources.max_retries: found the number 101; allowed: 100 or less"),
        ("max_retries: true", "resources.max_retries: found the truth value true"),
        ("max_retires: 1", "did you mean 'max_retries'?"),
    ],
)
def test_resources_are_checked(tmp_path: Path, written: str, told: str) -> None:
    problem = only_problem(tmp_path, changed(after=f"resources:\n  {written}\n"))
    assert problem.startswith("shop.yaml:24: ")
    assert told in problem


@pytest.mark.parametrize(
    "host", ["db:5432", "https://db", "*", "*.", "a.*.b", "**.x", "10.0.0.0/8", "a b", "", "-a", "a..b", "[::1]"]
)
def test_host_patterns_are_checked(tmp_path: Path, host: str) -> None:
    text = changed(("  streams:\n", f"  permissions: {{network: {{allowed_hosts: ['{host}']}}}}\n  streams:\n"))
    if host == "*":
        assert load_text(tmp_path, text).source.permissions.network.allowed_hosts == ("*",)
        return
    problem = only_problem(tmp_path, text)
    assert problem.startswith("shop.yaml:11: source.permissions.network.allowed_hosts[0]: found a")
    assert "allowed: a host name, an IP address" in problem


def test_a_host_list_that_was_commented_out_is_refused(tmp_path: Path) -> None:
    text = changed(("  streams:\n", "  permissions:\n    network:\n      allowed_hosts:\n  streams:\n"))
    problem = only_problem(tmp_path, text)
    assert problem.startswith("shop.yaml:13: source.permissions.network.allowed_hosts: found nothing (null)")
    assert "[] allows none" in problem


@pytest.mark.parametrize("seconds", ["0", "-1", "1h", "1.5", "99999999"])
def test_time_limits_are_checked(tmp_path: Path, seconds: str) -> None:
    text = changed(("  streams:\n", f"  limits: {{timeout_seconds: {seconds}}}\n  streams:\n"))
    assert only_problem(tmp_path, text).startswith("shop.yaml:11: source.limits.timeout_seconds: found ")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("key: []", "dagster.key: found an empty list"),
        ("key: a//b", "dagster.key[1]: found ''"),
        ("key: [a b]", "dagster.key[0]: found 'a b'"),
        ("group: a b", "dagster.group: found 'a b'; allowed: letters, digits and _"),
        ("owners: [bob]", "dagster.owners[0]: found 'bob'; allowed: an e-mail address, or team:NAME"),
        ("owners: bob@x.io", "dagster.owners: found 'bob@x.io'; allowed: a list"),
        ("tags: {a b: c}", "dagster.tags.a b: found 'a b'; allowed: tag names"),
        ("tags: {a: b c}", "dagster.tags.a: found 'b c'; allowed: tag values of at most 63"),
        (f"tags: {{a: {'x' * 64}}}", "dagster.tags.a: found 'xxx"),
        ("tags: {a: 1}", "dagster.tags.a: found the number 1; allowed: a text (put it in quotes)"),
        ("tags: [a]", "dagster.tags: found a list; allowed: a mapping"),
        ("kinds: [a, b, c, d, e, f, g, h, i, j, k]", "dagster.kinds: found a list; allowed: at most 10 kinds"),
        ("kinds: [a b]", "dagster.kinds[0]: found 'a b'"),
        (
            "kind: [a]",
            "dagster.kind: unknown key; allowed: key, group, owners, tags, kinds, retry_policy, op_tags, pool;",
        ),
    ],
)
def test_dagster_options_are_held_to_dagsters_limits(tmp_path: Path, written: str, told: str) -> None:
    problem = only_problem(tmp_path, changed(("      columns", f"      dagster: {{{written}}}\n      columns")))
    assert problem.startswith(f"shop.yaml:13: source.streams[0].{told}")


@pytest.mark.parametrize("section", ["resources", "state"])
def test_an_empty_section_is_refused(tmp_path: Path, section: str) -> None:
    problem = only_problem(tmp_path, changed(after=f"{section}:\n"))
    assert problem == f"shop.yaml:23: {section}: found nothing (null); allowed: a mapping of keys"


def test_streams_must_be_a_list_that_is_not_empty(tmp_path: Path) -> None:
    start, end = VALID.index("  streams:"), VALID.index("destination:")
    for streams, found in (("[]", "an empty list"), ("{}", "a mapping"), ("", "nothing (null)"), ("users", "'users'")):
        problem = only_problem(tmp_path, f"{VALID[:start]}  streams: {streams}\n{VALID[end:]}")
        assert problem.startswith(f"shop.yaml:11: source.streams: found {found}; allowed: ")


def test_a_stream_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    problem = only_problem(tmp_path, changed(("    - name: orders\n", "    - 5\n    - name: orders\n")))
    assert problem == "shop.yaml:14: source.streams[1]: found the number 5; allowed: a mapping of keys"
