"""The review page in a real browser, by keyboard, as a reviewer uses it.

Needs Chromium (Debian's package ``chromium``) and is skipped without it.
"""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
import webbrowser
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CLASSES, read_json, run
from drawn import Colours, film, rider, walker
from logs import truth_of
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from reviewing import Client, Server, serving, start, visitor

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.settings import CameraConfig, CutConfig, IngestConfig
from collabteam.video.pipeline import ingest_footage
from collabteam.web.server import _open_browser

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
expect.set_options(timeout=20_000)  # what a busy machine may take


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with serving(root, "seed_per_class=100") as running:
        yield running


def enter(context: BrowserContext, server: Server) -> Page:
    """Open the printed address; the first page of crops is there when this returns."""
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}{server.way_in}")
    ready(page)
    return page


def ready(page: Page, after: str = "") -> str:
    """Wait for a grid, another one than ``after``, and its pictures; returns its name.

    A reviewer looks at a page before the next Enter; one that comes at once is taken for a bounce.
    """
    html = page.locator("html")
    expect(html).not_to_have_attribute("data-page", re.compile(f"^({after})?$"))
    loading = "[...document.querySelectorAll('[data-testid=cell] img')].some(img => !img.complete)"
    for _ in range(200):
        if not page.evaluate(loading):
            break
        page.wait_for_timeout(50)
    page.wait_for_timeout(300)
    return html.get_attribute("data-page") or ""


def next_is_loaded(page: Page) -> None:
    expect(page.locator("html")).to_have_attribute("data-next", "ready")


def cells(page: Page) -> list[str]:
    shown = page.locator("[data-testid=cell]:visible")
    return shown.evaluate_all("nodes => nodes.map(node => node.dataset.crop)")


def labels(page: Page) -> dict[str, str]:
    """What differs from what is suggested, by crop."""
    shown = page.locator("[data-testid=cell]:visible")
    return dict(
        shown.evaluate_all(
            "nodes => nodes.filter(node => node.dataset.label)"
            ".map(node => [node.dataset.crop, node.dataset.label])"
        )
    )


def all_sent(page: Page) -> None:
    """Wait until the server has confirmed everything."""
    expect(page.get_by_test_id("unsent")).to_be_hidden()
    waiting = "Object.keys(localStorage).filter(key => key.includes(':outbox:')).length"
    for _ in range(100):
        if page.evaluate(waiting) == 0:
            return
        page.wait_for_timeout(100)
    raise AssertionError("pages are still unsent")


def human(root: Path) -> dict[str, str]:
    index = Catalog(root / "sim").index()
    return {i: h for i, h in zip(index.crop_id, index.human, strict=True) if h}


def said_once(root: Path) -> None:
    """No commit's word on a crop is in the log twice."""
    log = Catalog(root / "sim").log().to_pylist()
    said = Counter((event["commit"], event["crop_id"]) for event in log if event["commit"])
    assert set(said.values()) <= {1}


# --- a page --------------------------------------------------------------------------------------


def test_a_page_is_verified_by_keyboard_alone(
    root: Path, context: BrowserContext, server: Server
) -> None:
    page = enter(context, server)
    expect(page.get_by_test_id("suggested")).to_contain_text(CLASSES[0])
    shown = cells(page)
    assert len(shown) >= 60
    # Nothing has to be scrolled to see them, at a laptop's size.
    last = page.locator("[data-testid=cell]:visible").nth(59).bounding_box()
    assert last is not None
    assert last["y"] + last["height"] <= 768
    keyboard = page.keyboard
    keyboard.press("Home")
    keyboard.press("2")  # the first crop is of the second class
    keyboard.press("ArrowRight")
    keyboard.press("0")  # none of these
    keyboard.press("ArrowRight")
    keyboard.press("x")  # unusable
    keyboard.press("ArrowRight")
    keyboard.press("Shift+ArrowRight")
    keyboard.press("Shift+ArrowRight")
    keyboard.press("3")  # three of the third class
    expected = {
        shown[0]: CLASSES[1], shown[1]: "unknown", shown[2]: "unusable",
        **dict.fromkeys(shown[3:6], CLASSES[2]),
    }  # fmt: skip
    assert labels(page) == expected
    keyboard.press("End")
    keyboard.press("2")
    keyboard.press("Backspace")  # all right after all
    assert labels(page) == expected
    first = ready(page)
    keyboard.press("Enter")
    ready(page, first)
    assert not set(cells(page)) & set(shown)
    all_sent(page)
    assert human(root) == {crop: expected.get(crop, CLASSES[0]) for crop in shown}


def test_what_is_marked_wrong_needs_a_class(context: BrowserContext, server: Server) -> None:
    page = enter(context, server)
    name = ready(page)
    marked = page.locator("[data-testid=cell]:visible").nth(7)
    marked.click()
    expect(marked).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("status")).to_contain_text("class")
    assert ready(page) == name
    marked.click()
    page.keyboard.press("Enter")
    ready(page, name)


def test_undo_goes_back_over_commits(root: Path, context: BrowserContext, server: Server) -> None:
    page = enter(context, server)
    names, marks = [], []
    for key in ("2", "3", "0"):
        names.append(ready(page))
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press(key)
        marks.append(labels(page))
        page.keyboard.press("Enter")
        ready(page, names[-1])
    all_sent(page)
    before = human(root)
    assert before.items() >= marks[0].items()
    assert set(marks[0].values()) == {CLASSES[1]}
    # Undone twice, the second page is back as it was answered; then the third comes next again.
    at = ready(page)
    page.keyboard.press("u")
    assert ready(page, at) == names[2]
    page.keyboard.press("Control+z")
    assert ready(page, names[2]) == names[1]
    assert labels(page) == marks[1]
    assert set(human(root)) < set(before)
    page.keyboard.press("Enter")
    assert ready(page, names[1]) == names[2]
    assert labels(page) == marks[2]
    page.keyboard.press("Enter")
    ready(page, names[2])
    all_sent(page)
    assert human(root) == before
    said_once(root)


def test_a_reload_amid_a_page_loses_no_mark(context: BrowserContext, server: Server) -> None:
    page = enter(context, server)
    shown = cells(page)
    page.keyboard.press("Home")
    page.keyboard.press("2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    marked = labels(page)
    assert len(marked) == 2
    page.reload()
    ready(page)
    assert cells(page) == shown
    assert labels(page) == marked
    # Closed and opened again it is the same page, too.
    page.close()
    again = context.new_page()
    again.goto(f"http://127.0.0.1:{server.port}/?queue=seed")
    ready(again)
    assert cells(again) == shown
    assert labels(again) == marked


def test_zoom_and_help(context: BrowserContext, server: Server, root: Path) -> None:
    page = enter(context, server)
    page.keyboard.press("Home")
    page.keyboard.press("z")
    zoom = page.get_by_test_id("zoom")
    expect(zoom).to_be_visible()
    index = Catalog(root / "sim").index()
    track = dict(zip(index.crop_id, index.track, strict=True))
    mates = [c for c, t in track.items() if t == track[cells(page)[0]] and c != cells(page)[0]]
    for mate in mates:
        expect(zoom.locator(f"img[src$='{mate}']")).to_be_visible()
    page.keyboard.press("Escape")
    expect(zoom).to_be_hidden()
    page.locator("[data-testid=cell]:visible").nth(12).hover()
    expect(zoom).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_test_id("help")).to_be_visible()
    expect(page.get_by_test_id("help")).to_contain_text("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("help")).to_be_hidden()


def test_zoom_shows_the_frame_that_the_crop_was_cut_from(
    tmp_path: Path, context: BrowserContext
) -> None:
    pytest.importorskip("trackers", reason="needs the extra 'footage'")
    street = (
        *rider("bicycle", 5, 3.0, 10), *rider("motorcycle", 200, -2.0, 125), walker(270, 40, -2.0)
    )  # fmt: skip
    path = film(tmp_path / "gate.mp4", street)
    config = IngestConfig(
        camera=CameraConfig("sim", CLASSES), root=str(tmp_path / "outputs"), source="video",
        path=str(path), tracker="sort", cut=CutConfig(min_frames=5, min_size=20),
    )  # fmt: skip
    ingest_footage(config, detector=Colours())
    with serving(tmp_path / "outputs", "queue=seed") as server:
        client = visitor(server)
        crop = client.page()["crops"][0]["id"]
        client.call("release", queue="seed")
        told = client.send("GET", f"/api/context/{crop}").json
        assert told["still"] is True
        assert told["video"].startswith("gate.mp4")
        frame = client.send("GET", f"/frame/{crop}")
        assert frame.headers["content-type"] == "image/jpeg"
        context.add_cookies([cookie(client, server)])
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/?queue=seed")
        ready(page)
        page.keyboard.press("Home")
        page.keyboard.press("z")
        still = page.get_by_test_id("zoom").locator("img[src^='/frame/']")
        expect(still).to_be_visible()
        size = "async image => (await image.decode(), [image.naturalWidth, image.naturalHeight])"
        assert still.evaluate(size) == [320, 240]
        path.unlink()  # the video was moved away: the rest of the zoom stays
        page.reload()
        ready(page)
        page.keyboard.press("Home")
        page.keyboard.press("z")
        expect(page.get_by_test_id("zoom")).to_be_visible()
        expect(page.get_by_test_id("zoom")).to_contain_text("gate.mp4")
        expect(still).to_have_count(0)


def test_the_end_says_what_comes_next(root: Path, context: BrowserContext, server: Server) -> None:
    client, truth = visitor(server), truth_of(Catalog(root / "sim"))
    while len((page := client.page(size=60))["crops"]) and page["suggested"] != CLASSES[2]:
        client.commit(page, {crop["id"]: truth[crop["id"]] for crop in page["crops"]})
    client.call("release", queue="seed")
    tab = context.new_page()
    context.add_cookies([cookie(client, server)])
    tab.goto(f"http://127.0.0.1:{server.port}/?queue=seed")
    at = ready(tab)
    for _ in range(3):
        tab.keyboard.press("Enter")
        another = tab.locator(f"html[data-page]:not([data-page='']):not([data-page='{at}']) body")
        expect(tab.get_by_test_id("done").or_(another)).to_be_visible()
        if tab.get_by_test_id("done").is_visible():
            break
        at = ready(tab, at)
    # How far, how fast; the time left stands there as long as there is some.
    expect(tab.get_by_test_id("progress")).to_contain_text(re.compile(r"300 / 300.*/ min"))
    expect(tab.get_by_test_id("done")).to_contain_text(
        "python -m collabteam.train camera=sim round=0 seed_per_class=100"
    )
    all_sent(tab)
    assert len(human(root)) == 300
    tab.keyboard.press("u")  # undo works from there, too
    ready(tab)


def visitor_named(root: Path, server: Server, name: str) -> Client:
    """Another reviewer, invited as the command does it."""
    client = Client(server.port)
    held = read_json(root / "sim" / "review" / "lock")
    answer = client.send(
        "POST", "/api/invite", {"reviewer": name}, {"Authorization": f"Bearer {held['secret']}"}
    )
    client.enter(f"/enter?token={answer.json['token']}")
    return client


def cookie(client: Client, server: Server) -> dict[str, str]:
    name, content = client.cookie.split("=", 1)
    return {"name": name, "value": content, "url": f"http://127.0.0.1:{server.port}"}


# --- nothing is lost -----------------------------------------------------------------------------


def test_the_server_is_killed_amid_commits_and_started_again(
    root: Path, context: BrowserContext
) -> None:
    server = start(root, "seed_per_class=100")
    page = enter(context, server)
    answered: list[str] = []
    at = ready(page)
    for number in range(4):
        last = cells(page)
        answered += last
        if number == 1:
            next_is_loaded(page)  # the page leaves out crops whose pictures it never got
        page.keyboard.press("Enter")
        if number == 1:
            server.kill()  # while the second page is on its way
        if number < 2:
            at = ready(page, at)
        else:
            break
        if number == 1:
            page.wait_for_timeout(1200)
    # On a busy machine the page may take the last Enter for a bounce.
    waiting = (
        "Object.keys(localStorage).filter(key => key.includes(':outbox:'))"
        ".flatMap(key => Object.keys(JSON.parse(localStorage[key]).answers ?? {}))"
    )
    for _ in range(20):
        page.wait_for_timeout(500)
        if set(last) <= set(page.evaluate(waiting)):
            break
        page.keyboard.press("Enter")
    expect(page.get_by_test_id("unsent")).to_be_visible()
    server = start(root, "seed_per_class=100", port=server.port)
    try:
        all_sent(page)
        assert set(human(root)) == set(answered)
        said_once(root)
        ready(page)  # and there is more to do
        assert not set(cells(page)) & set(answered)
    finally:
        server.kill()


def test_the_network_drops(root: Path, context: BrowserContext, server: Server) -> None:
    page = enter(context, server)
    next_is_loaded(page)
    at, first = ready(page), cells(page)
    context.set_offline(True)
    page.keyboard.press("Enter")
    ready(page, at)  # the next page is there all the same
    expect(page.get_by_test_id("unsent")).to_contain_text("1")
    assert human(root) == {}
    # Closing the tab costs nothing: another one finds what is unsent, and sends it.
    page.close(run_before_unload=False)
    context.set_offline(False)
    again = context.new_page()
    again.goto(f"http://127.0.0.1:{server.port}/?queue=seed")
    ready(again)
    all_sent(again)
    assert set(human(root)) == set(first)
    said_once(root)


def test_two_tabs_at_once(root: Path, context: BrowserContext, server: Server) -> None:
    one = enter(context, server)
    two = context.new_page()
    two.goto(f"http://127.0.0.1:{server.port}/?queue=seed")
    ready(two)
    assert not set(cells(one)) & set(cells(two))
    shown = [*cells(one), *cells(two)]
    for tab in (one, two):
        at = ready(tab)
        tab.keyboard.press("Enter")
        ready(tab, at)
    for tab in (one, two):
        all_sent(tab)
    assert sorted(human(root)) == sorted(shown)
    assert not set(cells(one)) & set(cells(two))
    said_once(root)


def test_conflicts_show_who_said_what(root: Path, context: BrowserContext) -> None:
    with serving(root, "seed_per_class=40", "double=1", "queue=seed") as server:
        ana = visitor(server)
        asked = ana.page(size=40)
        mine = [crop["id"] for crop in asked["crops"]]
        ana.commit(asked, dict.fromkeys(mine, asked["suggested"]))
        secret = visitor_named(root, server, "ben")
        again = secret.page(size=40)
        assert {crop["id"] for crop in again["crops"]} == set(mine)
        secret.commit(again, dict.fromkeys(mine, again["suggested"]) | {mine[0]: "unknown"})
        context.add_cookies([cookie(ana, server)])
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/?queue=conflict")
        ready(page)
        assert cells(page) == [mine[0]]
        cell = page.locator("[data-testid=cell]:visible")
        expect(cell).to_contain_text("ana")
        expect(cell).to_contain_text("ben")
        page.keyboard.press("Enter")  # nobody's word is taken for the right one
        expect(page.get_by_test_id("status")).not_to_be_empty()
        assert cells(page) == [mine[0]]
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("done")).to_be_visible()
        all_sent(page)
    assert human(root)[mine[0]] == CLASSES[0]


def test_ten_thousand_crops_in_the_queue(tmp_path: Path, context: BrowserContext) -> None:
    root = tmp_path / "outputs"
    catalog = Catalog.register(root, "sim", CLASSES)
    picture = Catalog(simulated_folder(tmp_path)).images([0])[0]
    crops = [Crop(picture, "v", str(n), n, float(n)) for n in range(10_000)]
    catalog.add_crops(crops)
    catalog.append_labels(
        [LabelEvent(c.crop_id, CLASSES[n % 3], "detector", "proposal") for n, c in enumerate(crops)]
    )
    with serving(root, "seed_per_class=4000") as server:
        page = enter(context, server)
        expect(page.get_by_test_id("progress")).to_contain_text("10,000")
        seen: list[str] = []
        for _ in range(10):
            seen += cells(page)
            at = ready(page)
            page.keyboard.press("Enter")
            ready(page, at)
        all_sent(page)
        assert len(set(seen)) == len(seen)
        assert set(human(root)) == set(seen)
        # One page's cells at a time, and the next: nothing piles up.
        assert page.locator("[data-testid=cell]").count() < 600


def simulated_folder(tmp_path: Path) -> Path:
    other = tmp_path / "other" / "outputs"
    other.parent.mkdir()
    done = run("simulate", other, "camera=one", "crops=1")
    assert done.returncode == 0, done.stderr
    return other / "one"


def test_another_reviewer_in_the_same_browser_takes_nobodys_work(
    root: Path, context: BrowserContext, server: Server
) -> None:
    page = enter(context, server)
    next_is_loaded(page)
    at, shown = ready(page), cells(page)
    context.set_offline(True)
    page.keyboard.press("Enter")
    ready(page, at)
    ben = visitor_named(root, server, "ben")
    kept = context.cookies()
    context.add_cookies([cookie(ben, server)])
    context.set_offline(False)
    expect(page.get_by_test_id("ended")).to_contain_text("ben")
    assert human(root) == {}
    page.reload()  # as ben, who has crops of his own
    ready(page)
    assert not set(cells(page)) & set(shown)
    assert human(root) == {}
    context.add_cookies(kept)
    page.reload()  # ana again
    all_sent(page)
    assert set(human(root)) == set(shown)
    log = Catalog(root / "sim").log().to_pylist()
    assert {event["by"] for event in log if event["source"] == "person"} == {"ana"}


# --- nobody else gets in -------------------------------------------------------------------------


def test_the_file_that_is_opened_leads_to_the_page(
    root: Path, context: BrowserContext, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    address = f"http://127.0.0.1:{server.port}{server.way_in}"
    _open_browser(address, Catalog(root / "sim").workspace.review)
    assert opened[0].startswith("file://")
    page = context.new_page()
    page.goto(opened[0])
    ready(page)
    assert cells(page)
    assert "token" not in page.url


def test_a_wrong_address_shows_nothing(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/enter?token=wrong&queue=seed")
    expect(page.locator("body")).to_contain_text("run 'python -m collabteam.review' again")
    page.goto(f"http://127.0.0.1:{server.port}/")
    assert page.get_by_test_id("grid").count() == 0
    assert context.cookies() == []


def test_a_session_that_ends_is_said_and_keeps_the_marks(
    root: Path, context: BrowserContext, server: Server
) -> None:
    page = enter(context, server)
    next_is_loaded(page)
    at, shown = ready(page), cells(page)
    kept = context.cookies()
    context.clear_cookies()
    page.keyboard.press("Enter")
    ready(page, at)
    expect(page.get_by_test_id("ended")).to_be_visible()
    assert human(root) == {}
    context.add_cookies(kept)
    page.reload()
    ready(page)
    all_sent(page)
    assert set(human(root)) == set(shown)


SPY = """
<!doctype html><title>another site</title><script>
window.results = [];
async function attempt(what, url, init) {
  try { const answer = await fetch(url, {credentials: "include", ...init});
        results.push([what, answer.type === "opaque" ? "opaque" : answer.status]); }
  catch (error) { results.push([what, "refused"]); }
}
(async () => {
  const body = JSON.stringify(
    {queue: "seed", tab: "spy", commit: "spy-spy-spy", page: "", answers: ANSWERS});
  const headers = {"Content-Type": "application/json"};
  await attempt("read", TARGET + "/api/state", {method: "POST", body, headers});
  await attempt("blind", TARGET + "/api/commit", {method: "POST", body, mode: "no-cors"});
  await attempt("picture", TARGET + "/crop/" + CROP, {mode: "no-cors"});
  const image = new Image();
  await new Promise(done => { image.onload = () => { results.push(["image", "shown"]); done(); };
                              image.onerror = () => { results.push(["image", "refused"]); done(); };
                              image.src = TARGET + "/crop/" + CROP; });
  const frame = document.createElement("iframe");
  frame.src = TARGET + "/"; document.body.append(frame);
  await new Promise(done => { frame.onload = done; setTimeout(done, 1500); });
  let inside = "refused";
  try { if (frame.contentDocument.querySelector("#grid")) inside = "shown"; } catch {}
  results.push(["frame", inside]);
  window.finished = true;
})();
</script><body></body>
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_another_site_in_the_same_browser_gets_nothing(
    root: Path, context: BrowserContext, server: Server, tmp_path: Path, host: str
) -> None:
    """Also one on another port of the same host, with which cookies are shared."""
    page = enter(context, server)
    crop = cells(page)[0]
    site = tmp_path / "site"
    site.mkdir()
    target = f"http://127.0.0.1:{server.port}"
    spy = SPY.replace("ANSWERS", f'{{"{crop}": "{CLASSES[1]}"}}')
    spy = spy.replace("TARGET", f'"{target}"').replace("CROP", f'"{crop}"')
    (site / "index.html").write_text(spy)
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        other = context.new_page()
        other.goto(f"http://{host}:{evil.server_address[1]}/")
        other.wait_for_function("window.finished === true")
        results = dict(other.evaluate("window.results"))
        evil.shutdown()
    assert results["read"] == "refused"
    assert results["image"] == "refused"
    assert results["frame"] == "refused"
    assert results["picture"] in ("refused", "opaque")
    assert human(root) == {}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing about what it serves."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_page_asks_nobody_else(context: BrowserContext, server: Server) -> None:
    asked: list[str] = []
    errors: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("console", lambda said: said.type == "error" and errors.append(said.text))
    page = enter(context, server)
    page.keyboard.press("z")
    at = ready(page)
    page.keyboard.press("Enter")
    ready(page, at)
    assert asked
    assert {url.split("/")[2] for url in asked if not url.startswith(("data:", "blob:"))} == {
        f"127.0.0.1:{server.port}"
    }
    assert errors == []  # the content policy would be among them


def test_nothing_is_written_outside_the_cameras_folder(
    root: Path, context: BrowserContext, server: Server
) -> None:
    before = {path for path in root.parent.rglob("*") if root / "sim" not in path.parents}
    page = enter(context, server)
    at = ready(page)
    page.keyboard.press("Enter")
    ready(page, at)
    all_sent(page)
    after = {path for path in root.parent.rglob("*") if root / "sim" not in path.parents}
    assert after == before
    # The browser keeps ids and labels of what is unsent or half done, and never a picture.
    kept = page.evaluate("JSON.stringify(Object.entries(localStorage))")
    assert "data:" not in kept
    assert "blob:" not in kept


def test_nothing_is_preselected_where_the_team_does_not_know(
    finished: Path, context: BrowserContext
) -> None:
    """Enter alone confirms nothing; a rectangle, a range and one key give a run its class."""
    catalog = Catalog.open(finished, "sim")
    before = catalog.log_size()
    with serving(finished, "queue=unsure") as server:
        page = enter(context, server)
        expect(page.get_by_test_id("suggested")).to_contain_text("The team does not know")
        crops = cells(page)
        assert len(crops) >= 5
        for _ in range(3):
            page.keyboard.press("Enter")
            page.wait_for_timeout(250)
        assert cells(page) == crops  # blind presses lead nowhere
        expect(page.get_by_test_id("status")).to_contain_text("Nothing is labelled yet")
        # The first of the run, then one key at its end.
        page.keyboard.press("Home")
        page.keyboard.press("1")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press(".")
        assert labels(page) == dict.fromkeys(crops[:3], CLASSES[0])
        # A rectangle over two more.
        boxes = [page.locator(f"[data-crop='{crop}']").bounding_box() for crop in crops[3:5]]
        one, two = boxes
        assert one is not None
        assert two is not None
        page.mouse.move(one["x"] + one["width"] - 4, one["y"] + 20)
        page.mouse.down()
        page.mouse.move(two["x"] + 10, two["y"] + 30, steps=4)
        page.mouse.up()
        # The key for a run gives what is marked no other crops, and forgets no mark.
        page.keyboard.press(".")
        assert labels(page) == dict.fromkeys(crops[:5], CLASSES[0])
        page.mouse.move(one["x"] + one["width"] - 4, one["y"] + 20)
        page.mouse.down()
        page.mouse.move(two["x"] + 10, two["y"] + 30, steps=4)
        page.mouse.up()
        page.keyboard.press("2")
        assert labels(page) == {
            **dict.fromkeys(crops[:3], CLASSES[0]), **dict.fromkeys(crops[3:5], CLASSES[1])
        }  # fmt: skip
        page.keyboard.press("Enter")
        all_sent(page)
    said = Catalog.open(finished, "sim").log(("crop_id", "label", "purpose")).to_pylist()[before:]
    assert {one["crop_id"]: one["label"] for one in said} == {
        **dict.fromkeys(crops[:3], CLASSES[0]), **dict.fromkeys(crops[3:5], CLASSES[1])
    }  # fmt: skip
    assert {one["purpose"] for one in said} == {"unsure"}
