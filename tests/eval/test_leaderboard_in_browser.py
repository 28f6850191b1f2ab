"""The leaderboard in a headless Chromium, opened from disk: sorting, filters, samples, a phone, and hostile text."""

import pytest

from eval.leaderboard.build import build_leaderboard

HOSTILE = "\u202e</textarea></script><img src=x onerror=alert(1)><script>alert(2)</script>\u2028{{7*7}}\x00 & <!-- "
ROWS = {
    "base": {"right": 2, "baseline": True},
    "SFT": {"right": 10, "settings": {"model": "{run}/sft/model"}},
    "<b>other</b> \u202emodel " + "long" * 60: {"right": 30, "only": ["heldout"]},
}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def board(tmp_path_factory, browser, run_writer):
    """The folder of a leaderboard with hostile samples, one of them long."""
    run = run_writer(tmp_path_factory.mktemp("browser"))("x", ROWS, items=130, samples=True, wrote=HOSTILE)
    samples = run / "eval" / "row-0" / "samples.jsonl"
    lines = samples.read_text().split("\n")
    lines[3] = lines[3].replace('"completion": "', '"completion": "' + "A" * 1_000_000)
    samples.write_text("\n".join(lines))
    build_leaderboard([run])
    return run / "leaderboard"


@pytest.fixture
def open_page(board, open_file):
    """Open a file of the board."""
    return lambda path, address="": open_file(board / path, address)


def names(page):
    rows = page.locator("#board tbody tr:visible")
    return [row.locator("td").first.get_attribute("data-value") for row in rows.all()]


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_columns_sort_both_ways_and_rows_without_a_figure_stay_below(open_page):
    page = open_page("index.html")
    head = page.locator("#board th", has_text="heldout mean")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [name.split()[0] for name in names(page)] == ["<b>other</b>", "SFT", "base"]
    head.locator("button").click()
    assert [name.split()[0] for name in names(page)] == ["base", "SFT", "<b>other</b>"]
    other = page.locator("#board th", has_text="critique micro")
    other.locator("button").focus()
    page.keyboard.press("Enter")  # as with the mouse
    assert [name.split()[0] for name in names(page)] == ["SFT", "base", "<b>other</b>"]
    other.locator("button").click()
    assert [name.split()[0] for name in names(page)] == ["base", "SFT", "<b>other</b>"]
    assert head.get_attribute("aria-sort") is None
    page.locator("#board th").first.locator("button").click()
    assert names(page)[-1].startswith("<b>")


def test_rows_and_columns_can_be_filtered(open_page):
    page = open_page("index.html")
    page.fill("#rows", "sft MODEL")
    assert names(page) == ["SFT"]
    page.fill("#rows", "nobody")
    assert names(page) == []
    page.fill("#rows", "")
    assert len(names(page)) == 3
    shown = page.locator("#board thead th:visible")
    before = shown.count()
    page.locator("[name=kind][value=failures]").uncheck()
    assert shown.count() == before - 2 * 2 - 2
    assert not any("unparsed" in text for text in shown.all_inner_texts())
    page.locator("[name=benchmark][value=critique]").uncheck()
    assert not any("critique" in text for text in shown.all_inner_texts())
    assert page.locator("#board tbody tr").first.locator("td:visible").count() == shown.count()


def test_cells_lead_to_their_samples(open_page):
    page = open_page("index.html")
    row = page.locator("#board tbody tr").first
    row.locator("a[href*='heldout'][href*='show=unparsed']").click()
    page.wait_for_selector("article")
    assert page.locator("h1").inner_text() == "base" and "show=unparsed" in page.url
    assert page.locator("article").count() == 20
    assert set(page.locator(".state:not(.cut)").all_inner_texts()) == {"unparsed"}
    assert page.locator("#count").inner_text() == "1–20 of 64"
    page.locator("#on").click()
    page.wait_for_function("document.querySelector('#count').textContent.startsWith('21–40')")
    page.select_option("#show", "wrong")
    page.wait_for_function("document.querySelector('.state').textContent === 'wrong'")
    page.select_option("#task", "sort")
    page.wait_for_function("document.querySelector('article b').textContent.startsWith('sort/')")
    page.fill("#search", "sort/77")
    page.wait_for_function("document.querySelector('#count').textContent === '1–1 of 1'")
    assert page.locator("article b").inner_text() == "sort/77"
    assert page.locator("article dd").nth(1).inner_text() == "77"
    page.locator("article summary").click()
    assert "question 77?" in page.locator("article details pre").inner_text()
    page.select_option("#show", "truncated")
    page.fill("#search", "sort/7")
    page.wait_for_function("document.querySelectorAll('.cut').length === 3")  # 7, 71, 79
    page.locator("a", has_text="leaderboard").click()
    assert page.locator("#board").count() == 1


def test_a_task_leads_to_its_own_samples(open_page):
    page = open_page("index.html")
    page.locator("#board tbody tr").nth(1).locator("a[href*='task=critique%2Fsum']").click()
    page.wait_for_selector("article")
    assert page.locator("#task").input_value() == "critique/sum"
    assert page.locator("#count").inner_text() == "1–20 of 130"
    assert all(name.startswith("critique/sum/") for name in page.locator("article b").all_inner_texts())


def test_what_a_model_wrote_stays_text(open_page):
    page = open_page("samples/1-base/1-heldout/index.html")
    page.wait_for_selector("article")
    assert page.evaluate("document.querySelectorAll('article img, article script, article textarea').length") == 0
    text = page.locator("article").nth(1).locator("> div pre").evaluate("pre => pre.textContent")
    assert text == HOSTILE + " 1"
    page.locator("article summary").nth(1).click()
    assert page.locator("article").nth(1).locator("details pre").evaluate("pre => pre.textContent").startswith(HOSTILE)
    assert page.evaluate("getComputedStyle(document.querySelector('article pre')).unicodeBidi") == "isolate"
    assert fits(page)


def test_long_text_is_folded_until_it_is_wanted(open_page):
    page = open_page("samples/1-base/1-heldout/index.html")
    page.wait_for_selector("article")
    text = page.locator("article").nth(3).locator("> div pre")
    assert text.evaluate("pre => pre.textContent.length") == 4000
    page.locator("article").nth(3).locator("> div .more").click()
    assert text.evaluate("pre => pre.textContent.length") == 1_000_000 + len(HOSTILE) + 2
    assert fits(page) and text.bounding_box()["height"] < 600


def test_names_neither_run_nor_turn_the_line(open_page):
    page = open_page("index.html")
    assert page.locator("#board img, #board script, #board b b").count() == 0
    cell = page.locator("#board tbody tr").nth(2).locator("td").first
    assert cell.inner_text().startswith("<b>other</b> \ufffdmodel longlong")
    assert fits(page)


def test_any_two_rows_are_compared_as_in_pairs_csv(open_page, board):
    page = open_page("index.html")
    page.select_option("#one", label="base")
    page.select_option("#other", label="SFT")
    first = page.locator("#pair tbody tr").first.locator("td").all_inner_texts()
    assert first[0] == "heldout" and first[1].startswith("−6.2") and first[3].startswith("0 : 16")
    kept = next(line for line in (board / "pairs.csv").read_text().splitlines() if line.startswith("heldout,base,SFT"))
    assert kept.split(",")[3] == "-6.15"
    page.select_option("#one", label="SFT")
    page.select_option("#other", label="base")
    turned = page.locator("#pair tbody tr").first.locator("td").all_inner_texts()
    assert turned[1].startswith("+6.2") and turned[3].startswith("16 : 0")
    page.select_option("#other", index=2)
    assert "no item in common" in page.locator("#pair tbody tr").nth(1).inner_text()


def test_the_command_and_versions_of_a_row_are_shown(open_page):
    page = open_page("index.html")
    row = page.locator("#board tbody tr").nth(1)
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    said = row.locator("dl").inner_text()
    assert "whetstone eval tiny.yaml --set seed=0" in said and "vllm" in said and "{run}/sft/model" in said


@pytest.mark.parametrize("path", ["index.html", "samples/2-sft/1-heldout/index.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(open_page, path, scheme):
    page = open_page(path)
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)
    page.wait_for_selector("article" if "samples" in path else "#board")
    assert fits(page)
    for summary in page.locator("summary:visible").all()[:6]:
        summary.click()
    assert fits(page)
    if path == "index.html":
        assert page.locator(".scroll").first.evaluate("box => box.scrollWidth > box.clientWidth"), "it scrolls inside"
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)")


def test_a_missing_part_is_said_to_be_missing(browser, board):
    part = board / "samples" / "2-sft" / "1-heldout" / "part-0.js"
    content = part.read_bytes()
    part.unlink()
    page = browser.new_page()
    page.goto((part.parent / "index.html").as_uri())
    page.wait_for_function("document.querySelector('#list').textContent.includes('part-0.js is missing')")
    page.close()
    part.write_bytes(content)
