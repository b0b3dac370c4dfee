"""The page of `make bench-outage`."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median
from textwrap import wrap
from typing import Any

from outage_worker import FEATURES

from otel_mlmon import semconv
from otel_mlmon.export import PENDING_REQUESTS

WANTED = 1.1  # times as long as where the receiver is healthy a call may take, p50
SAYS = {
    "healthy": "answers at once",
    "away": "connections are refused",
    "black hole": "takes connections and never answers",
    "slow": "takes requests, answers after the exporter's timeout",
    "refusing": "UNAVAILABLE, or RESOURCE_EXHAUSTED with RetryInfo (over HTTP 503 or 429)",
    "resetting": "two thirds of the requests end in a reset, before or after they were taken",
    "away for longer": "as away; more intervals than are kept",
}
Cases = dict[str, list[dict[str, Any]]]  # of each the figures of each round


def render(result: dict[str, Any]) -> str:
    """The page."""
    rounds = result["rounds"]
    interval, timeout = f"{result['interval_s'] * 1e3:.0f} ms", f"{result['timeout_s'] * 1e3:.0f} ms"
    wanted = f"""Wanted: predict unchanged while the receiver is away, silent, slow, refuses, or resets connections; as
        a bound, p50 of a call at most {WANTED} times as long as where it is healthy, in the median of the rounds
        (here {rounds}). {_tell_reach(result["found"])}"""
    about = f"""Written by `make bench-outage`: a model process ({FEATURES} features, one row a call, scikit-learn's
        logistic regression) and its receiver on one machine ({result["machine"]}), one process after the other, with a
        healthy one before and after each, as the machine's speed changes within minutes. An outage is
        {result["intervals"]} intervals, which at the default interval is an hour; here they are of {interval}, and the
        exporter's timeout is {timeout}, so that exports are 1,200 times as dense as in production. A call is
        `predict_proba` with its recording; recording alone is the same without the model. Times are medians of the
        rounds; in brackets: times as long as where the receiver is healthy, the mean of the one before and the one
        after, the median and from the least to the most. Memory: by how much a process grew during the outage, at most.
        Calls and arrived: of all rounds."""
    arrived = f"""Arrived: of every feature, its histogram, the scores and the durations alike, once the receiver was
        back (where intervals were given up, durations to a few calls: they are collected a moment later); a delta that
        came twice is known by its interval. Deltas of more than {PENDING_REQUESTS} requests are not kept: the oldest
        are given up, and `{semconv.METRIC_MLMON_RECORDER_UNSENT.name}` says how many points those were."""
    lines = ["# While the receiver is away", ""]
    for text in (wanted, about):
        lines += [*wrap(" ".join(text.split()), 120), ""]
    for kind, cases in result["found"].items():
        lines += [f"## {kind[0].upper()}{kind[1:]}", ""]
        lines += [
            "| receiver | call, p50 | p99 | recording alone, p50 | p99 | memory | calls | arrived |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        lines += [_line(cases, case) for case in cases]
        lines.append("")
    lines += [f"- {case}: {what}." for case, what in SAYS.items()]
    lines += ["", *wrap(" ".join(arrived.split()), 120)]
    return "\n".join(lines) + "\n"


def _ratios(cases: Cases, case: str, what: str, quantile: str) -> list[float]:
    """Of each round: how many times as long as where the receiver is healthy, just before and just after."""
    return [one["us"][what][quantile] / mean(us[what][quantile] for us in one["beside"]) for one in cases[case]]


def _tell_reach(found: dict[str, Cases]) -> str:
    ratios = {
        f"{case}, {kind}": median(_ratios(cases, case, "call", "p50"))
        for kind, cases in found.items()
        for case in cases
        if case != "healthy"
    }
    missed = [f"{name} ({ratio:.2f})" for name, ratio in ratios.items() if ratio > WANTED]
    if missed:
        return f"**Not reached** in {len(missed)} of {len(ratios)} cases: {'; '.join(missed)}."
    return f"**Reached** in all {len(ratios)} cases, at most {max(ratios.values()):.2f}." if ratios else ""


def _line(cases: Cases, case: str) -> str:
    rounds = cases[case]
    return " | ".join(
        [
            f"| {case}",
            *_times(cases, case),
            f"{max(one['grown'] for one in rounds) / 1e6:+.1f} MB",
            f"{sum(one['calls'] for one in rounds):,}",
            f"{sum(one['arrived'] for one in rounds):,} |",
        ]
    )


def _times(cases: Cases, case: str) -> Iterator[str]:
    for what in ("call", "recording"):
        for quantile in ("p50", "p99"):
            microseconds = median(one["us"][what][quantile] for one in cases[case])
            beside = ""
            if case != "healthy":
                ratios = _ratios(cases, case, what, quantile)
                beside = f" ({median(ratios):.2f}; {min(ratios):.2f} to {max(ratios):.2f})"
            yield f"{microseconds:.0f} µs{beside}"
