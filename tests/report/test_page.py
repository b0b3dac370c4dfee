"""The page in a real browser: what it says, what it lets one do, and what it never does."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from jsonschema import Draft202012Validator
from playwright.sync_api import expect

from otel_mlmon import compare
from otel_mlmon.report import html

ROOT = Path(__file__).parents[2]
STATIC = Path(html.__file__).parent / "static"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "device_scale_factor": 2}
SHAPES = [
    {"features": 0},
    {"features": 1, "periods": 1, "segments": 1},
    {"features": 9, "periods": 12, "segments": 3, "moved": 0},
    {"features": 14, "periods": 10, "segments": 5, "moved": 0.6},
    {"features": 8, "periods": 5, "unit": "month"},
    {"features": 8, "segments": 4},
]


def names(page):
    return page.locator("#table > tbody > tr:visible th[scope=row] > button").all_inner_texts()


def opened(page, at=0):
    page.locator(f"#f{at} button").click()
    page.wait_for_selector(f"#d{at} .inside")


# ---------------------------------------------------------------- without a browser


@pytest.mark.parametrize("shape", [*SHAPES, {"features": 60, "periods": 60, "segments": 10}])
def test_documents_of_these_tests_conform_to_the_schema(documents, shape):
    schema = json.loads((ROOT / "docs" / "compare.schema.json").read_text())
    Draft202012Validator(schema).validate(documents(**shape))


def test_equal_documents_give_equal_pages(documents):
    document = documents(6, 4, 3)
    shuffled = dict(reversed(json.loads(json.dumps(document)).items()))
    assert html.render_page(document) == html.render_page(shuffled)


def test_a_number_that_json_cannot_say_is_an_error(documents):
    document = documents(3)
    document["features"][0]["drift"]["psi"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        html.render_page(document)


def test_a_page_can_be_written_whatever_a_name_holds(documents):
    html.render_page(documents(3, names=["half a pair \ud83d"])).encode("utf-8")


def test_libraries_are_those_that_their_readme_names():
    said = re.findall(r"^    (\w{64})  (\S+)$", (STATIC / "README.md").read_text(), re.MULTILINE)
    assert {name for _, name in said} == set(html.LIBRARIES)
    for digest, name in said:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, ""),
        (0, "0.0000"),
        (-0.00001, "0.0000"),
        (-0.0123, "\N{MINUS SIGN}0.0123"),
        (0.5, "0.5000"),
        (12.345, "12.35"),
        (12345.6, "12,346"),
    ],
)
def test_measures_are_written_with_decimals_that_line_up(number, text):
    assert html.format_measure(number) == text


def test_shares_are_zero_only_where_there_is_nothing():
    assert [html.format_share(share) for share in (0, 0.0001, 0.0312, 1, None)] == [
        "0",
        "<0.1\xa0%",
        "3.1\xa0%",
        "100.0\xa0%",
        "",
    ]


def test_times_of_one_day_are_told_in_hours():
    time = {"first": "2013-01-01T05:00:00Z", "last": "2013-01-01T23:30:00Z", "days": 1, "empty_days": 0}
    assert html.format_days(time) == "2013-01-01 05:00 \N{EN DASH} 2013-01-01 23:30"
    assert html.format_days(time | {"last": "2013-02-01T00:00:00Z"}) == "2013-01-01 \N{EN DASH} 2013-02-01"
    assert html.format_days(None) == "\N{EN DASH}"


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize("shape", SHAPES)
def test_every_kind_of_document_is_shown(documents, show, shape):
    document = documents(**shape)
    page = show(document).page
    expect(page.locator("#verdict")).to_have_text(document["verdict"])
    expect(page.locator(".badge")).to_contain_text("Passed" if document["passed"] else "Changed")
    assert page.title() == "train -> live"
    assert len(names(page)) == len(document["features"])
    charts = 2 * bool(document["periods"]) + bool(document["periods"]) * bool(document["features"])
    charts += bool(document["segments"]) * bool(document["features"])
    expect(page.locator(".chart > svg[role=img]")).to_have_count(charts)
    for at in range(min(5, len(document["features"]))):
        opened(page, at)
    levels = [int(name[1]) for name in page.locator("h1, h2, h3").evaluate_all("all => all.map((one) => one.tagName)")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_charts_say_in_words_what_they_show(documents, show):
    page = show(documents(8, 6, 3)).page
    opened(page)
    labels = page.locator(".chart > svg").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    assert len(labels) >= 6
    assert all(re.fullmatch(r"[A-Z].{20,}\.", label) for label in labels), labels


def test_names_are_text_and_never_html(documents, show):
    document = documents(
        14, 6, 5, names=documents.ODD_NAMES, moved=1, reference="<b>old</b>", current="</title><script>x"
    )
    page = show(document).page
    for at, feature in enumerate(document["features"]):
        opened(page, at)
        shown = page.locator(f"#d{at} h3")
        assert shown.evaluate("one => one.textContent") == (feature["name"] or "(no name)")
        expect(page.locator(f"#f{at} button > span")).to_have_text(" ".join(feature["name"].split()) or "(no name)")
    assert page.locator("main :is(img, script, i:not([class]), b b), h1 b").count() == page.locator(".ramp i").count()
    assert page.title() == "<b>old</b> -> </title><script>x"


def test_findings_open_their_features(documents, show):
    document = documents(12, moved=1)
    page = show(document).page
    finding = next(f for f in document["findings"] if f["level"] == "drift")
    page.locator("#search").fill("no such feature")
    expect(page.locator("#none")).to_be_visible()
    page.get_by_role("link", name=finding["name"], exact=True).click()
    at = next(i for i, f in enumerate(document["features"]) if f["name"] == finding["name"])
    expect(page.locator(f"#d{at}")).to_be_visible()
    expect(page.locator(f"#f{at} button")).to_be_focused()


def test_without_scripts_the_verdict_findings_and_table_are_there(documents, show):
    document = documents(12, 6, 3, moved=0.7)
    page = show(document, java_script_enabled=False).page
    expect(page.locator("#verdict")).to_have_text(document["verdict"])
    expect(page.get_by_text("need JavaScript")).to_be_visible()
    expect(page.locator("ol li").first).to_be_visible()
    expect(page.locator("#table > tbody > tr:visible")).to_have_count(12)
    expect(page.locator("button:visible, input:visible, .chart:visible")).to_have_count(0)


def test_the_document_survives(documents, show):
    document = documents(14, 6, 5, names=documents.ODD_NAMES)
    page = show(document).page
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    assert download.value.suggested_filename == "comparison.json"
    assert json.loads(Path(download.value.path()).read_text()) == document
    assert json.loads(page.evaluate("JSON.stringify(data)")) == document


def test_a_real_comparison_is_shown(show):
    rng = np.random.default_rng(7)
    days = np.datetime64("2024-01-01") + rng.integers(0, 40, 8000).astype("timedelta64[D]")
    place = rng.choice(["here", "there", "<i>"], 8000)
    before = pd.DataFrame(
        {"at": days, "place": place, "size": rng.normal(size=8000), "kind": rng.choice(list("abc"), 8000)}
    )
    after = before.assign(at=days + np.timedelta64(40, "D"), size=before["size"] * 1.5)
    document = compare(before, after, time_column="at", by="place", names=("<b>old", "new")).to_dict()
    page = show(document).page
    expect(page.locator("#verdict")).to_have_text(document["verdict"])
    assert names(page) == [feature["name"] for feature in document["features"]]
    page.get_by_role("link", name="size", exact=True).first.click()
    expect(page.locator(".detail .chart > svg").first).to_be_visible()


# ---------------------------------------------------------------- what it lets one do


def test_sorting_by_any_header(documents, show):
    document = documents(23, moved=0.5)
    page = show(document).page
    in_order = [f["name"] for f in document["features"]]
    assert names(page) == in_order
    effect = page.locator("#table thead th").nth(3)
    effect.locator("button").click()
    expect(effect).to_have_attribute("aria-sort", "descending")
    known = [f for f in document["features"] if f["drift"]["effect"] is not None]
    unknown = [f["name"] for f in document["features"] if f["drift"]["effect"] is None]
    falling = [f["name"] for f in sorted(known, key=lambda f: -f["drift"]["effect"])]
    assert unknown
    assert names(page) == falling + unknown
    effect.locator("button").click()
    expect(effect).to_have_attribute("aria-sort", "ascending")
    assert names(page) == falling[::-1] + unknown
    effect.locator("button").click()
    assert names(page) == in_order
    assert effect.get_attribute("aria-sort") is None
    for column in range(9):
        head = page.locator("#table thead th").nth(column)
        head.locator("button").click()
        expect(head).to_have_attribute("aria-sort", re.compile("ascending|descending"))
        assert sorted(names(page)) == sorted(in_order)


def test_search_and_filter(documents, show):
    document = documents(40, moved=0.5)
    page = show(document).page
    faults = {f["name"] for f in document["findings"] if f["level"] == "fault"}
    changed = {f["name"] for f in document["features"] if f["changed"]}
    page.get_by_role("button", name="Changed", exact=True).click()
    assert set(names(page)) == changed
    expect(page.locator("#shown")).to_have_text(f"{len(changed)} of 40 features")
    page.get_by_role("button", name="Faults", exact=True).click()
    assert set(names(page)) == faults & changed
    expect(page.get_by_role("button", name="Faults", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("searchbox").fill("WIND_")
    assert set(names(page)) == {f["name"] for f in document["features"] if "wind_" in f["name"]}
    page.get_by_role("searchbox").fill("categories differ")
    assert set(names(page)) == {f["name"] for f in document["features"] if "categories differ" in f["text"]}


def test_opening_by_keyboard_alone(documents, show):
    page = show(documents(6, 4, 3)).page
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    first = page.locator("#f0 button")
    for _ in range(30):
        page.keyboard.press("Tab")
        if first.evaluate("one => one === document.activeElement"):
            break
    expect(first).to_be_focused()
    assert first.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(first).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#d0 .chart > svg").first).to_be_visible()
    page.keyboard.press("Space")
    expect(first).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#d0")).to_have_count(0)


def test_search_and_filter_hide_cards_on_a_phone(documents, show):
    document = documents(30, moved=0.5)
    page = show(document, **PHONE).page
    page.get_by_role("button", name="Changed", exact=True).click()
    assert set(names(page)) == {f["name"] for f in document["features"] if f["changed"]}
    opened(page)
    page.get_by_role("searchbox").fill("nothing at all")
    expect(page.locator("#none")).to_be_visible()
    assert names(page) == []
    expect(page.locator("#d0")).to_be_hidden()


def test_an_open_detail_goes_with_its_row(documents, show):
    page = show(documents(9, moved=0.5)).page
    opened(page, 2)
    page.get_by_role("button", name="Feature", exact=True).click()
    assert page.locator("#f2 + tr").get_attribute("id") == "d2"
    page.get_by_role("searchbox").fill("nothing at all")
    expect(page.locator("#d2")).to_be_hidden()


def test_details_state_the_numbers(documents, show):
    document = documents(6, 4, 3, moved=1)
    at, feature = next((i, f) for i, f in enumerate(document["features"]) if "low" in (f["distribution"] or {}))
    page = show(document).page
    opened(page, at)
    text = page.locator(f"#d{at}").inner_text()
    for part in (
        "below 0: 1.0\xa0% → <0.1\xa0%",
        "above 20: 1.0\xa0% → 2.0\xa0%",
        "1,234,567",
        "\N{MINUS SIGN}1.25",
        "Kolmogorov-Smirnov",
    ):
        assert part in text
    assert html.format_measure(feature["drift"]["psi"]) in text
    selected = "one => { getSelection().selectAllChildren(one); return getSelection().toString(); }"
    assert "Valid values" in page.locator(f"#d{at} .tables").evaluate(selected)


@pytest.mark.parametrize("permitted", [True, False])
def test_the_table_is_copied_as_tsv(documents, show, permitted):
    document = documents(12, names=["tab\there"], moved=0.5)
    shown = show(document)
    page = shown.page
    shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if not permitted:
        page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error('no')))")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#shown")).to_have_text("Copied 12 rows")
    lines = [line.split("\t") for line in page.evaluate("navigator.clipboard.readText()").splitlines()]
    assert lines[0][:3] == ["feature", "role", "type"]
    assert [len(line) for line in lines] == [11] * 13
    for line, feature in zip(lines[1:], document["features"], strict=True):
        assert line[0] == feature["name"].replace("\t", " ")
        effect = feature["drift"]["effect"]
        assert (float(line[4]) if line[4] else None) == effect


def test_the_theme_follows_the_system_until_it_is_chosen(documents, show):
    background = "getComputedStyle(document.body).backgroundColor"
    shown = show(documents(4), color_scheme="dark")
    page, dark = shown.page, shown.page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert dark != light
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(background) == dark
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    shown.requests.pop()
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(background) == light


def test_it_works_where_nothing_can_be_stored(documents, show):
    shown = show(documents(4))
    page = shown.page
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no') }})")
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    shown.requests.pop()
    page.get_by_role("button", name="Dark theme").click()
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()


# ---------------------------------------------------------------- wherever it is read


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing(documents, show, scheme, place):
    document = documents(14, 6, 5, names=documents.ODD_NAMES, moved=0.6)
    page = show(document, color_scheme=scheme, reduced_motion="reduce", **place).page
    kinds = [
        next(i for i, f in enumerate(document["features"]) if key in f["distribution"]) for key in ("low", "labels")
    ]
    for at in kinds:
        opened(page, at)
    results = Axe().run(page, options={"resultTypes": ["violations"]})
    assert results.violations_count == 0, results.generate_report()


def test_axe_finds_nothing_where_all_is_quiet(documents, show):
    for shape in ({"features": 0}, {"features": 5, "moved": 0}):
        results = Axe().run(show(documents(**shape)).page)
        assert results.violations_count == 0, results.generate_report()


def test_no_width_scrolls_sideways(documents, show):
    document = documents(14, 6, 5, names=documents.ODD_NAMES, moved=0.6, reference="r" * 300, current="c " * 90)
    page = show(document, viewport={"width": 320, "height": 740}).page
    for at in range(5):
        opened(page, at)
    for width in (320, 360, 700, 1000, 1280, 600, 360):
        page.set_viewport_size({"width": width, "height": 740})
        # Charts follow the width at the next frame.
        page.wait_for_function(
            "(width) => document.documentElement.scrollWidth <= width && innerWidth === width", arg=width
        )


def test_details_fit_when_the_window_is_turned(documents, show):
    page = show(documents(6, 6, 3), **PHONE).page
    opened(page)
    assert page.locator("#d0 > td").evaluate("one => one.colSpan") == 4
    page.set_viewport_size({"width": 1280, "height": 740})
    page.wait_for_function("document.querySelector('#d0 > td').colSpan === 10")
    page.wait_for_function("document.querySelector('#d0 .chart svg').clientWidth > 500")


def test_print(documents, show):
    page = show(documents(60, 6, 3, moved=0.6), color_scheme="dark").page
    opened(page)
    page.emulate_media(media="print", color_scheme="dark")
    for selector in ("#verdict", "ol li >> nth=0", "#table", "#f59", "#d0 .chart svg >> nth=0"):
        expect(page.locator(selector)).to_be_visible()
    expect(page.locator(".controls:visible, button#theme:visible, .skip:visible")).to_have_count(0)
    expect(page.locator("details li").first).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("svg.spark")).to_have_count(60)
    assert page.pdf().startswith(b"%PDF")


def test_five_hundred_features(documents, show):
    document = documents(500, 60, 10)
    assert len(html.render_page(document).encode()) < 1_000_000
    page = show(document).page
    # Ready before all is drawn: only the rows near the window have a picture.
    assert page.locator("svg.spark").count() < 50
    for at in (0, 250, 499):
        page.locator(f"#f{at}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#f{at} svg.spark")
    assert page.locator("svg.spark").count() < 250
    assert page.evaluate("performance.getEntriesByName('ready')[0].startTime") < 10_000
    page.get_by_role("searchbox").fill("plane_")
    page.get_by_role("button", name="PSI").click()
    wanted = {f["name"] for f in document["features"] if "plane_" in f["name"]}
    assert set(names(page)) == wanted
    opened(page, next(i for i, f in enumerate(document["features"]) if f["name"] in wanted))
