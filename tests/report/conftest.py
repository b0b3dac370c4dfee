"""Documents of every kind, and one real browser that shows their pages."""

from __future__ import annotations

import datetime
import math
import os
import random
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from otel_mlmon.report.html import render_page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
MEASURES = ("p_value", "psi", "psi_corrected", "js", "ks", "wasserstein", "mean_shift", "hellinger", "chi2", "linf")
ODD_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "${x}",
    "{{ 7 * 7 }}",
    "</script><script>alert(2)</script>",
    "<!--",
    "tab\tand\nline",
    "Größe_价格_🙂",
    "",
    "a_very_long_name_" * 12,
)


def rounded(number: float) -> float:
    return float(f"{number:.6g}")


class Documents:
    """Makes documents of docs/compare.schema.json; the same arguments give the same one."""

    ODD_NAMES = ODD_NAMES
    TOLERANCE = 0.005

    def __call__(
        self, features=12, periods=0, segments=0, *, moved=0.3, names=(), unit="week", reference="train", current="live"
    ):
        draw = random.Random(features * 1000 + periods * 10 + segments)
        made = []
        for i in range(features):
            name = names[i] if i < len(names) else f"{draw.choice(('dep', 'arr', 'air', 'wind', 'plane'))}_{i}"
            made.append(self._feature(draw, name, i, draw.random() < moved, (periods, segments)))
        made.sort(key=lambda f: -(f["drift"]["effect_lower"] or 0))
        findings = self._findings(made)
        passed = not any(finding["level"] in ("fault", "drift") for finding in findings)
        changed = sum(f["changed"] is True for f in made)
        return {
            "format": "otel-mlmon/comparison",
            "format_version": 1,
            "passed": passed,
            "verdict": "Nothing has changed." if passed else f"{changed} of {features} features have changed.",
            "reference": self._side(reference, 129_581, datetime.date(2013, 1, 1), 120),
            "current": self._side(current, 207_195, datetime.date(2013, 5, 1), 245),
            "settings": {"tolerance": self.TOLERANCE, "false_alarms": 0.01, "tests": 3 * features},
            "findings": findings,
            "features": made,
            "periods": self._periods(draw, periods, unit) if periods else None,
            "segments": self._segments(draw, segments) if segments else None,
        }

    @staticmethod
    def _side(name, rows, first, days):
        last = first + datetime.timedelta(days - 1)
        time = {"first": f"{first}T05:00:00Z", "last": f"{last}T23:00:00Z", "days": days, "empty_days": 2}
        return {"name": name, "kind": "data", "rows": rows, "duplicates": 0.0004, "time": time}

    @staticmethod
    def _periods(draw, many, unit):
        days = {"day": 1, "week": 7, "month": 31}[unit]
        starts = [datetime.date(2013, 4, 29) + datetime.timedelta(days * i) for i in range(many)]
        if unit == "month":
            starts = [datetime.date(2013 + i // 12, 1 + i % 12, 1) for i in range(many)]
        return {
            "unit": unit,
            "starts": [str(day) for day in starts],
            "rows": [draw.randint(4000, 7000) for _ in starts],
        }

    @staticmethod
    def _segments(draw, many):
        names = [("EWR", "JFK", "LGA", "", "<b>bold</b>")[i] if i < 5 else f"segment {i}" for i in range(many)]
        rows = [draw.randint(100, 90_000) for _ in names]
        return {"column": "origin", "names": names, "reference_rows": [None, *rows[1:]], "current_rows": rows}

    def _feature(self, draw, name, i, moved, many):
        periods, segments = many
        categorical, few = i % 4 == 3, i % 11 == 10
        effect = 10 ** draw.uniform(-1.7, 1.5) if moved else draw.gauss(0, 0.0008)
        shift = math.sqrt(math.log1p(min(max(effect, 0.0), 20))) if moved else 0.0
        missing = draw.uniform(0.05, 0.6) if moved and i % 5 == 0 else 0.0
        drift = {key: rounded(abs(effect) * draw.uniform(0.2, 1)) for key in MEASURES}
        drift |= {"p_value": 1e-12 if moved else rounded(draw.random()), "effect": rounded(effect)}
        drift["effect_lower"] = rounded(effect * 0.9 if moved else effect - 0.002)
        if categorical:
            drift |= {"ks": None, "wasserstein": None, "mean_shift": None}
        changed = None if few else moved
        if few:
            drift = dict.fromkeys(drift)
        text = ("shares of categories differ" if categorical else f"mean up {shift:.2f} sd") if changed else ""
        if changed and missing:
            text = f"missing 0 % -> {missing * 100:.2g} %"
        since = "2013-05-06" if changed and periods and i % 2 else None
        rate = {"reference": 0.0, "current": rounded(missing), "lower": rounded(missing * 0.9), "allowed": 0.02}
        return {
            "name": name,
            "column": name,
            "role": "score" if i == 1 else "target" if i == 2 else "feature",
            "type": "string" if categorical else "float",
            "transform": "age" if i == 5 else "identity",
            "changed": changed,
            "text": text,
            "since": since,
            "drift": drift,
            "rates": {"missing": rate, "out_of_range": {**rate, "reference": None}},
            "reference": self._summary(129_581, 0.0, 10.0, categorical),
            "current": self._summary(207_195, missing, 10 + 3 * shift, categorical),
            "distribution": self._categories(draw, shift, i) if categorical else self._numbers(shift),
            "periods": self._series(draw, effect, periods, missing, categorical) if periods else None,
            "segments": self._series(draw, effect, segments, missing, categorical) if segments else None,
        }

    @staticmethod
    def _summary(count, missing, mean, categorical):
        figures = {"mean": mean, "std": 3.0, "min": -1.25, "median": mean, "max": 1234567.0}
        if categorical:
            figures = dict.fromkeys(figures)
        return {"count": round(count * (1 - missing)), "missing": rounded(missing), **figures}

    @staticmethod
    def _numbers(shift):
        def shares(centre):
            heights = [math.exp(-(((i - centre) / 6) ** 2) / 2) for i in range(40)]
            return [rounded(height / sum(heights) * 0.98) for height in heights]

        ends = {"below": [0.01, 0.0004], "above": [0.01, 0.0196]}
        return {"low": 0.0, "high": 20.0, "reference": shares(20), "current": shares(20 + 3 * shift), **ends}

    @staticmethod
    def _categories(draw, shift, i):
        labels = [f"carrier {k}" for k in range(4 + i % 30)] + ["_OTHER_", "_UNSEEN_"]
        before = [1 / (k + 1) for k in range(len(labels))]
        now = [weight * (1 + shift * draw.random()) for weight in before]
        sides = [[rounded(weight / sum(side)) for weight in side] for side in (before, now)]
        return {"labels": labels, "reference": sides[0], "current": sides[1]}

    def _series(self, draw, effect, many, missing, categorical):
        effects = [None if draw.random() < 0.03 else effect * draw.uniform(0, 2) for _ in range(many)]
        lower = [None if e is None else rounded(e - 0.002 - abs(e) * 0.2) for e in effects]
        return {
            "effect": [None if e is None else rounded(e) for e in effects],
            "effect_lower": lower,
            "mean_shift": [None if e is None or categorical else rounded(e / 3) for e in effects],
            "missing": [rounded(missing * draw.uniform(0.5, 1.5)) for _ in range(many)],
            "changed": [None if e is None else e > self.TOLERANCE for e in lower],
        }

    @staticmethod
    def _findings(features):
        findings = []
        for feature in features:
            if not feature["changed"]:
                continue
            lost = feature["current"]["missing"] > 0
            finding = {"level": "fault" if lost else "drift", "kind": "missing" if lost else "drift"}
            finding |= {"role": feature["role"], "name": feature["name"], "text": feature["text"]}
            findings.append(finding | {"size": feature["drift"]["effect_lower"]})
        findings.sort(key=lambda f: (f["level"] != "fault", -f["size"]))
        if findings:
            gone = {
                "level": "fault",
                "kind": "gone",
                "role": "feature",
                "name": "<i>tail</i>",
                "text": "column is gone",
            }
            note = {
                "level": "note",
                "kind": "time",
                "role": "data",
                "name": "",
                "text": "2 days have no row",
                "size": 0.0,
            }
            findings = [gone | {"size": 1.0}, *findings, note]
        return findings


@pytest.fixture(scope="session")
def documents():
    return Documents()


@pytest.fixture(scope="module")  # its event loop must not outlive the tests that need it
def browser():
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("these tests need Chromium; on Debian: apt install chromium")
    assert chromium, "these tests need Chromium; on Debian: apt install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Shown:
    """A page in the browser, with what it asked for and what it complained of."""

    def __init__(self, browser, file: Path, **options) -> None:
        self.url = file.as_uri()
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.context.set_default_timeout(30_000)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.goto(self.url)
        if options.get("java_script_enabled", True):
            self.page.wait_for_selector("html[data-ready]", state="attached")


@pytest.fixture
def show(browser, tmp_path):
    """Show the page of a document; afterwards it must have asked for nothing and complained of nothing."""
    shown: list[Shown] = []

    def open_page(document, **options) -> Shown:
        file = tmp_path / f"{len(shown)}.html"
        file.write_text(render_page(document), encoding="utf-8")
        shown.append(Shown(browser, file, **options))
        return shown[-1]

    yield open_page
    for one in shown:
        one.context.close()
    for one in shown:
        assert one.complaints == []
        assert [url for url in one.requests if not url.startswith("blob:file://")] == [one.url]
