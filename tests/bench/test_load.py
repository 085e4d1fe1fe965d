"""The bench measures what it says; how fast it was is nobody's business here."""

from bench.load import Wish, main, table_of, take
from bench.scenarios import Figures, Scenario

RATE, SECONDS, CARDS = 20.0, 2.0, 10


def numbers_of(figures: Figures) -> dict[str, float]:
    return {
        name: getattr(figures, name)
        for name in figures.__struct_fields__
        if name not in {"scenario", "sight"}
    }


def test_a_small_run_grants_every_request_and_prints_positive_figures() -> None:
    run = take(Wish(list(Scenario), [RATE], SECONDS, workers=1, cards=CARDS), command="a test")

    calls = {(one.scenario, one.sight): one.calls for one in run.figures}
    assert calls == {
        (scenario, sight): count
        for scenario in Scenario
        for sight, count in (("first", CARDS), ("next", 30))
    }
    for figures in run.figures:
        numbers = numbers_of(figures)
        assert {name for name, number in numbers.items() if number <= 0} == set()
        assert figures.offered_per_second == RATE
        assert figures.p50_ms <= figures.p99_ms <= figures.max_ms
        # One statement judges the code; claim, locks and write are shared by a batch at most.
        assert figures.statements >= 1
    assert run.pgbench_tps > 0
    assert run.pgbench_postgres_cpu_ms > 0
    assert table_of(run).count("\n| ") == 2 + len(run.figures)


def test_more_codes_than_the_cards_can_show_is_refused_before_anything_starts() -> None:
    assert main(["--rate", "100", "--seconds", "10", "--cards", "10"]) == 2
