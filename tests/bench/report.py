"""What is printed: who was compared, with rates and costs, and each figure that has an aim, beside it."""

from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Result

Rounds = dict[tuple[str, int], dict[str, Result]]  # (storage, in flight): contender: result


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the issue's list. `limit` is the most, or with `at_least` the least, that meets the aim."""

    name: str
    value: float | None  # None: missing, and `note` says why
    unit: str = "x"
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def aim(self) -> str:
        if self.limit is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    @property
    def met(self) -> bool | None:
        if self.limit is None or self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def row(self) -> dict[str, object]:
        """For --json."""
        return {**asdict(self), "met": self.met}


def print_rounds(console: Console, rounds: Rounds) -> None:
    """One table a storage, a row a contender: latency alone, rates by the number in flight, cost in a crowd."""
    for storage in dict.fromkeys(storage for storage, _ in rounds):
        by_flight = {in_flight: results for (at, in_flight), results in rounds.items() if at == storage}
        table = Table(title=f"one container of busybox true, upper in {storage}")
        table.add_column("", no_wrap=True)
        rates = [f"/s, {in_flight}" for in_flight in by_flight]
        for heading in ("execve", "reap", *rates, "cpu", "machine"):
            table.add_column(heading, justify="right")
        alone, crowd = by_flight[min(by_flight)], by_flight[sorted(by_flight)[1]]
        for name in dict.fromkeys(name for results in by_flight.values() for name in results):
            rated = [_number(results.get(name), "rate", "{:.0f}") for results in by_flight.values()]
            latency = [_number(alone.get(name), field) for field in ("exec_ms", "exit_ms")]
            cost = [_number(crowd.get(name), field) for field in ("cpu_ms", "busy_ms")]
            table.add_row(name, *latency, *rated, *cost)
        console.print(table)
    console.print("ms to execve and to reap with one in flight; containers/s by the number in flight;", style="dim")
    console.print("ms of processor time, its own and the whole machine's, with 8 in flight\n", style="dim")


def _number(result: Result | None, field: str, form: str = "{:.2f}") -> str:
    value = getattr(result, field, None)
    return "" if value is None else form.format(value)


_MET = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}


def print_figures(console: Console, figures: list[Figure]) -> None:
    """The table of figures and aims."""
    table = Table(title="figures")
    for heading, justify in (("figure", "left"), ("value", "right"), ("", "left"), ("aim", "right"), ("met", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("note", overflow="fold")
    for figure in figures:
        value = "missing" if figure.value is None else f"{figure.value:.2f}"
        table.add_row(figure.name, value, figure.unit, figure.aim, _MET[figure.met], figure.note)
    console.print(table)
