"""A measured figure, the bound it is held to, and how both are printed. Measures nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One measured number of one part; `runs` are the single measurements that it is the median of."""

    part: str
    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    runs: tuple[float, ...] = ()

    @property
    def verdict(self) -> str:
        """PASS or FALLS SHORT; empty for a figure that is only told."""
        if self.at_least is None and self.at_most is None:
            return ""
        low = self.at_least is not None and self.value < self.at_least
        high = self.at_most is not None and self.value > self.at_most
        return "FALLS SHORT" if low or high else "PASS"

    @property
    def bound(self) -> str:
        """The bound in words; empty without one."""
        words = [("at least", self.at_least), ("at most", self.at_most)]
        return ", ".join(f"{word} {number(value)}" for word, value in words if value is not None)

    def as_json(self) -> dict[str, object]:
        """Return the figure with its verdict, as it stands in the file of results."""
        return {**asdict(self), "verdict": self.verdict}


def median_figure(
    part: str,
    name: str,
    runs: list[float],
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """Return the median of `runs` as a figure; raises `ValueError` without any."""
    if not runs:
        raise ValueError(f"{name} was never measured")
    return Figure(part, name, median(runs), unit, at_least, at_most, tuple(runs))


def number(value: float) -> str:
    """Return a number with three significant digits, and no more digits than it has: 4,958, 39.2, 0.0056."""
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3 if size >= 0.0995 else 4
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def line(figure: Figure) -> str:
    """Return one line of the table."""
    runs = f"({' '.join(number(run) for run in figure.runs)})" if len(figure.runs) > 1 else ""
    text = (
        f"  {figure.name:<63} {number(figure.value):>8} {figure.unit:<9} {figure.bound:<24} {figure.verdict:<11} {runs}"
    )
    return text.rstrip()


def summary(figures: list[Figure]) -> str:
    """Return the last lines: how many bounds hold, and each that does not."""
    bounded = [figure for figure in figures if figure.verdict]
    short = [figure for figure in bounded if figure.verdict != "PASS"]
    lines = [f"{len(bounded) - len(short)} of {len(bounded)} bounds hold."]
    lines += [f"FALLS SHORT: {figure.part}, {figure.name}: {number(figure.value)}, {figure.bound}" for figure in short]
    return "\n".join(lines)
