"""The report in a real browser: no network, no error; hover, pins, sorting, filter, theme, keys; nothing cut off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imsave

from analysis.reporting.report import Report, write_report
from analysis.tokenizers.frames import load
from tests.analysis.reporting.browser import Browser, needs_chromium, started

pytestmark = [pytest.mark.slow, pytest.mark.processes, needs_chromium]

FASHION = Path(__file__).parents[3] / "docs" / "studies" / "fashion"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from started(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Report:
    """The report of the committed study, with a picture for two runs of one tokenizer."""
    folder = tmp_path_factory.mktemp("page")
    frames = load(FASHION)
    tokenizers = frames.runs[frames.runs["stage"] == "tokenizer"].sort_values("label")
    previews = {}
    for i, run_id in enumerate(tokenizers["run_id"][:2]):
        previews[run_id] = folder / f"{i}.png"
        imsave(previews[run_id], np.full((8, 40), 90 * i + 40, dtype=np.uint8), cmap="gray", vmin=0, vmax=255)
    return write_report(frames, folder / "out", title="Study fashion", previews=previews)


@pytest.fixture
def page(browser, written) -> Browser:
    """The page, freshly loaded at 1400 pixels."""
    browser.open(written.index)
    browser.logged(), browser.requested()
    return browser


def _place(page: Browser, selector: str, index: int = 0) -> tuple[float, float]:
    script = """
        const node = document.querySelectorAll(arguments[0])[arguments[1]];
        node.scrollIntoView({block: "center"});
        const box = node.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];"""
    x, y = page.run(script, selector, index)
    return x, y


def test_it_loads_from_a_file_without_network_or_console_messages(browser, written):
    browser.logged(), browser.requested()
    browser.open(written.index)
    own = written.index.as_uri()
    assert [url for url in browser.requested() if url != own and not url.startswith(("data:", "blob:"))] == []
    assert browser.logged() == []
    assert written.index.stat().st_size < 3 * 2**20


def test_the_embedded_answer_is_the_file_beside_the_page(page, written):
    inside = page.run("return document.getElementById('answer-json').textContent")
    assert json.loads(inside) == json.loads(written.answer_json.read_text())


def test_hovering_shows_the_run_with_the_numbers_of_the_tables(page, written):
    page.mouse(*_place(page, "#chart .mark", 7))
    shown = page.run("const tip = document.querySelector('#chart .tip'); return tip.hidden ? '' : tip.innerText")
    run_id = page.run("return document.querySelectorAll('#chart .mark')[7].dataset.run")
    frames = load(FASHION)
    rows = frames.points[frames.points["run_id"] == run_id]
    assert str(rows["label"].iloc[0]) in shown
    from analysis.reporting import wording

    assert any(
        f"gFID {wording.number(value)}" in shown and f"training FLOPs {wording.flops(flops)}" in shown
        for value, flops in zip(rows["gfid"], rows["path_flops"], strict=True)
    ), shown
    page.mouse(2, 2)
    assert page.run("return document.querySelector('#chart .tip').hidden")


def test_a_click_keeps_a_run_with_its_measurements_curve_and_samples(page, written):
    page.mouse(*_place(page, "#chart .mark", 3), click=True)
    pins = page.run("return [...document.querySelectorAll('.pin')].map(p => p.innerText)")
    assert len(pins) == 1 and "gFID" in pins[0]
    assert page.run("return document.querySelectorAll('.pin svg polyline').length") == 1
    # Both tokenizers with a picture show it: one from the strips of the page, the other from the page's data.
    frames = load(FASHION)
    tokenizers = frames.runs[frames.runs["stage"] == "tokenizer"].sort_values("label")
    for run_id in tokenizers["run_id"][:2]:
        page.run("document.getElementById('filter').value = arguments[0];"
                 "document.getElementById('filter').dispatchEvent(new Event('input'))", run_id)  # fmt: skip
        _until(page, "return document.querySelectorAll('[data-pin]').length === 1")
        page.run("document.querySelector('[data-pin]').click()")
        source = page.run("return document.querySelector(`.pin[data-run='${arguments[0]}'] img`).naturalWidth", run_id)
        assert source == 40
    page.run("document.querySelectorAll('.pin button').forEach(b => b.click())")
    assert page.run("return document.querySelectorAll('.pin').length") == 0


def _until(page: Browser, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page.driver, 20, poll_frequency=0.05).until(lambda driver: driver.execute_script(condition))


def test_tables_sort_by_number_both_ways(page):
    column = "return [...document.querySelectorAll('#table-generators tbody tr')].map(r => r.cells[{0}].innerText)"
    heads = page.run("return [...document.querySelectorAll('#table-generators th')].map(h => h.textContent.trim())")
    index = heads.index("FLOPs")
    page.run("document.querySelector('#table-generators').closest('details').open = true")
    button = f"document.querySelectorAll('#table-generators th button')[{index}].click()"
    page.run(button)
    rising = [_number(text) for text in page.run(column.format(index))]
    assert rising == sorted(rising) and len(set(rising)) > 3
    page.run(button)
    assert [_number(text) for text in page.run(column.format(index))] == sorted(rising, reverse=True)
    assert page.run(f"return document.querySelectorAll('#table-generators th')[{index}].ariaSort") == "descending"


def _number(text: str) -> float:
    mantissa, _, power = text.replace("\xa0", " ").partition(" × 10")
    return float(mantissa) * 10.0 ** int(power or 0)


def test_the_filter_narrows_table_and_chart_and_sorting_the_runs_keeps_it(page):
    page.run("document.getElementById('filter').value = 'K16-T16 XS'")
    page.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    _until(page, "return document.getElementById('counts').textContent.startsWith('3 of 24 runs')")
    labels = "return [...document.querySelectorAll('#table-runs [data-pin]')].map(b => b.innerText)"
    assert all("K16-T16-XS" in label for label in page.run(labels))
    assert page.run("return document.querySelectorAll('#chart .mark').length") == 18
    page.run("document.querySelectorAll('#table-runs th button')[0].click()")
    once = page.run(labels)
    page.run("document.querySelectorAll('#table-runs th button')[0].click()")
    assert page.run(labels) == once[::-1] and len(once) == 3


def test_every_pair_of_axes_draws_and_a_series_can_be_hidden(page):
    before = page.run("return document.querySelectorAll('#chart .mark').length")
    page.run("document.querySelector('#legend button').click()")
    assert 0 < page.run("return document.querySelectorAll('#chart .mark').length") < before
    page.run("""for (const x of document.getElementById('axis-x').options)
        for (const y of document.getElementById('axis-y').options) {
            document.getElementById('axis-x').value = x.value;
            document.getElementById('axis-y').value = y.value;
            document.getElementById('axis-y').dispatchEvent(new Event('change'));
            if (document.getElementById('chart').innerHTML.includes('NaN')) throw new Error(x.value + ' ' + y.value);
        }""")
    assert page.logged() == []


def test_the_theme_switches_and_is_kept(page, written):
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    assert page.run("return document.documentElement.dataset.theme") == "light"
    page.run("document.getElementById('theme').click()")
    assert page.run(ground) != light
    page.open(written.index)
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    page.run("document.getElementById('theme').click()")
    assert page.run(ground) == light


def test_keys_walk_the_points_keep_a_run_and_reach_the_rows(page):
    from selenium.webdriver.common.keys import Keys

    page.run("document.querySelector('#chart svg').focus()")
    page.press(Keys.ARROW_RIGHT)
    tip = "const tip = document.querySelector('#chart .tip'); return tip.hidden ? '' : tip.innerText"
    first = page.run(tip)
    page.press(Keys.ARROW_RIGHT)
    second = page.run(tip)
    assert first and second and first != second
    page.press(Keys.ENTER)
    assert page.run("return document.querySelector('.pin h3').innerText") == second.splitlines()[0]
    page.press(Keys.ESCAPE)
    assert page.run(tip) == ""
    # From the chart on, Tab comes to the table of runs and its first run, which Enter keeps.
    for _ in range(20):
        page.press(Keys.TAB)
        if page.run("return document.activeElement.dataset.pin !== undefined"):
            break
    name = page.run("return document.activeElement.innerText")
    page.press(Keys.ENTER)
    assert name in page.run("return [...document.querySelectorAll('.pin h3')].map(h => h.innerText)")


CUT_OFF = """
    const cut = [], width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) cut.push('the page itself');
    document.querySelectorAll('details').forEach(d => { d.open = true; });
    for (const node of document.querySelectorAll('main *')) {
        if (node.closest('svg') || node.closest('.tip') || node.matches('option, select, input')) continue;
        const box = node.getBoundingClientRect();
        const scroller = node.closest('.scroll, .grid');
        if (!scroller && box.width && (box.right > width + 1 || box.left < -1)) cut.push(node.outerHTML.slice(0, 80));
        if (!node.matches('.scroll, .grid') && scroller !== node && node.scrollWidth > node.clientWidth + 1
            && getComputedStyle(node).overflowX !== 'visible' && !scroller) cut.push(node.outerHTML.slice(0, 80));
    }
    return cut;"""
NO_CUE = """
    return [...document.querySelectorAll('.scroll, .grid')].filter(box => box.clientWidth && (
        box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1)
        && !(box.previousElementSibling && box.previousElementSibling.matches('.cue.on')
             && box.previousElementSibling.getBoundingClientRect().height > 8))
        .map(box => box.outerHTML.slice(0, 120));"""


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_cut_off_without_a_cue(browser, written, width):
    browser.open(written.index, width, 844)
    browser.run("document.querySelector('[data-pin]').click()")
    assert browser.run(CUT_OFF) == []
    _until(browser, f"return (() => {{{NO_CUE}}})().length === 0")
    assert browser.run(NO_CUE) == []
    # A figure's own texts stay inside its drawing.
    outside = browser.run("""return [...document.querySelectorAll('#chart text')].filter(text => {
        const box = text.getBoundingClientRect(), frame = text.ownerSVGElement.getBoundingClientRect();
        return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
    }).map(text => text.textContent)""")
    assert outside == []


@pytest.mark.parametrize(("width", "theme"), [(390, "light"), (1400, "dark")])
def test_axe_finds_no_serious_problem(browser, written, width, theme):
    import axe_core_python

    browser.open(written.index, width, 844)
    browser.run("document.documentElement.dataset.theme = arguments[0]", theme)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; });"
                "document.querySelector('[data-pin]').click()")  # fmt: skip
    # What a drawing is made of is one image to a screen reader, and thousands of paths to look at.
    browser.run("document.querySelectorAll('.drawing svg').forEach(svg => svg.replaceChildren())")
    browser.run((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    browser.driver.set_script_timeout(60)
    found = browser.driver.execute_async_script("""
        const done = arguments[arguments.length - 1];
        axe.run(document).then(r => done([r.passes.length, r.violations.map(
            v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 99) + ' | ' + n.failureSummary)])]));""")
    passed, violations = found
    assert passed > 20 and [v for v in violations if v[0] in ("serious", "critical", "moderate")] == []


def test_on_paper_every_table_is_open_and_on_the_screen_as_before(page):
    closed = page.run("return document.querySelectorAll('details:not([open])').length")
    assert closed > 3
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("return document.querySelectorAll('details:not([open])').length") == 0
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = "return [...document.querySelectorAll('.controls, .legend, .cue, nav, #theme')].some(e => e.offsetHeight)"
    assert not page.run(shown)
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.querySelectorAll('details:not([open])').length") == closed


def test_a_report_of_ones_own_trainer_is_as_usable(browser, own_study, tmp_path):
    report = write_report(own_study.frames(), tmp_path, title="Own")
    browser.logged()
    browser.open(report.index)
    assert browser.logged() == []
    assert browser.run("return document.querySelectorAll('#chart .mark').length") == 12
    assert browser.run("return document.getElementById('axis-y').selectedOptions[0].text") == "missed"
    browser.mouse(*_place(browser, "#chart .mark", 0), click=True)
    pin = browser.run("return document.querySelector('.pin').innerText")
    assert "width" in pin and "missed" in pin
    assert browser.run("return document.querySelectorAll('.pin svg polyline').length") == 1
    fit = browser.run("return document.querySelector('#table-fits').innerText")
    # The truth is 0.8 / x: a law with E = 0, on the edge of what is allowed, and alpha = 1.
    assert "missed" in fit and "boundary" in fit and "1.00 (" in fit
