"""agent/measure/bench_report.py: one benchmark in four forms."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from agent.measure.bench import Bench, Measured
from agent.measure.bench_figures import Spread
from agent.measure.bench_report import Machine, Report
from agent.measure.bench_sides import ModelFacts, differences

MACHINE = Machine(system="Linux", processor="a CPU", physical_cores=2, memory_free_mib=1000)
OURS = ModelFacts(name="coder.gguf", parameters=1_540_000_000, quantisation="Q4_K_M", context=4096)
THEIRS = replace(OURS, name="coder:1.5b")


def side(name: str, **figures: tuple[float, ...]) -> Measured:
    return Measured(
        name=name,
        description=f"{name} here",
        model=OURS,
        figures={key: Spread(values) for key, values in figures.items()},
    )


def report(*sides: Measured, **more: object) -> Report:
    bench = Bench(
        sides=sides, repeat=2, prompt=1800, answer=64, at_once=4, notes=("Mind this.\nAnd that.",)
    )
    return replace(Report(bench=bench, machine=MACHINE, command="turbo bench"), **more)


TWO = report(
    side("llamacpp", decode=(30.0, 20.0), ready=(1.0, 3.0)),
    side("ollama", decode=(10.0, 10.0), server_memory=(812.4, 1234.5)),
)


def test_a_table_has_what_any_side_has_and_the_ratio_where_both_do() -> None:
    assert TWO.heads == ["figure", "unit", "llamacpp", "ollama", "llamacpp against ollama"]
    rows = {row[0]: row[2:] for row in TWO.rows()}
    assert rows["writing, one answer"] == [
        "25.0 (20.0 to 30.0)",
        "10.0 (10.0 to 10.0)",
        "2.50 x better",
    ]
    assert rows["ready, nothing loaded before"] == ["2.00 (1.00 to 3.00)", "not measured", ""]
    assert rows["memory of the server"][1] == "1,023 (812 to 1,234)"
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("ours", "said"),
    [(700.0, "70.0 x worse"), (1.0, "10.0 x better"), (10.01, "the same"), (11.0, "1.10 x worse")],
)
def test_a_side_that_is_worse_is_called_so(ours: float, said: str) -> None:
    two = report(side("llamacpp", ready=(ours,)), side("ollama", ready=(10.0,)))
    assert two.rows()[0][-1] == said


def test_markdown_has_table_notes_methods_and_command() -> None:
    lines = TWO.markdown().splitlines()
    assert "| --- | --- | ---: | ---: | ---: |" in lines
    assert "> Mind this." in lines
    assert "> And that." in lines
    assert any(line.startswith("- writing, one answer: tokens of the coder") for line in lines)
    assert lines[-1] == "`turbo bench`"


def test_json_has_every_value() -> None:
    data = json.loads(TWO.json())
    assert data["sides"][0]["figures"]["decode"] == {
        "unit": "tokens/s",
        "median": 25.0,
        "low": 20.0,
        "high": 30.0,
        "values": [30.0, 20.0],
    }
    assert data["gains"]["decode"]["values"] == [3.0, 2.0]
    assert data["machine"]["physical_cores"] == 2


def test_csv_has_one_line_per_value() -> None:
    rows = list(csv.DictReader(io.StringIO(TWO.csv())))
    assert len(rows) == 8
    assert rows[0] == {
        "side": "llamacpp",
        "figure": "ready",
        "unit": "s",
        "repetition": "1",
        "value": "1.0",
    }


def test_a_figure_that_was_not_measured_says_so_beside_it() -> None:
    made = report(side("llamacpp", decode=(5.0,)), words={"decode": "extrapolated from 4 and 8"})
    assert made.rows()[0][0] == "writing, one answer (extrapolated from 4 and 8)"
    assert made.heads == ["figure", "unit", "llamacpp"]


def test_sides_that_cannot_be_compared_are_told_apart() -> None:
    assert differences([("llamacpp", OURS), ("ollama", THEIRS)]) == []
    other = replace(THEIRS, parameters=7_600_000_000, quantisation="Q8_0", context=2048)
    lines = differences([("llamacpp", OURS), ("ollama", other)])
    assert [line.split(":")[0] for line in lines] == [
        "Not the same model",
        "Not the same quantisation",
        "Not the same context",
    ]
    unknown = replace(THEIRS, parameters=0)
    assert "not known" in differences([("llamacpp", OURS), ("ollama", unknown)])[0]
