"""The dashboard in a real browser, before a real gateway on real servers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.harness import Running
from tests.scene import consent, numbers, objection, party, request, running_scene
from tests.test_gateway import OPERATE, Served, served

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(CHROMIUM is None, reason="the dashboard needs Chromium (apt-get install chromium, or its path in CHROMIUM)"),
]

PHONE = {"width": 360, "height": 740}
#: What a party may be called; on the page it is text.
HOSTILE = "<img src=x onerror=\"document.title='taken over'\">"
#: What Chromium itself says where a server has gone or refuses.
GONE = r"net::ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET|EMPTY_RESPONSE)"
REFUSED = r"status of 401"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Without its sandbox it also starts for root, as tests in a container do.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
async def guarded(kafka: str, redis_url: str) -> AsyncIterator[Running]:
    async with running_scene(kafka, redis_url) as guard:
        await guard.client.put_all([party("A", name="Duinstroom"), party("H", name=HOSTILE)])
        yield guard


@pytest.fixture(scope="module")
async def gate(guarded: Running) -> AsyncIterator[Served]:
    async with served(guarded) as gate:
        yield gate


@asynccontextmanager
async def visit(
    browser: Browser, gate: Served, path: str = "/", *, signed_in: bool = True, allowed: str = "$^", **options: Any
) -> AsyncIterator[Page]:
    """A page of the gateway. It must ask no other host for anything, and have nothing to say on the console but what is allowed."""
    said, hosts = list[str](), set[str]()
    async with await browser.new_context(base_url=gate.server.url, locale="en-GB", **options) as context:
        if signed_in:
            await context.request.post("/login", form={"key": OPERATE})
        page = await context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        await page.goto(path)
        yield page
    assert [text for text in said if not re.search(allowed, text)] == []
    assert hosts == {urlsplit(gate.server.url).netloc}


async def block(gate: Served, **fields: Any) -> dict[str, Any]:
    """A decision that blocks a call because the person objected."""
    (of,) = numbers(1)
    await gate.post("/v1/consents", consent(of)[1])
    await gate.post("/v1/objections", objection(of)[1])
    return (await gate.post("/v1/call-requests", request(of, **fields))).json()


async def approve(gate: Served) -> dict[str, Any]:
    (of,) = numbers(1)
    await gate.post("/v1/consents", consent(of)[1])
    return (await gate.post("/v1/call-requests", request(of))).json()


def calls(page: Page) -> Any:
    return page.locator("#calls button")


# --- Signing in -----------------------------------------------------------------------------------------------------------------


async def test_nothing_is_shown_before_somebody_has_signed_in(browser, gate):
    async with visit(browser, gate, signed_in=False, allowed=REFUSED) as page:
        await expect(page).to_have_title("Sign in · ringfence")
        assert await page.locator("main img").evaluate("image => image.naturalWidth > 0")
        await page.get_by_label("Your key").fill("not-a-key-that-is-known")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("This key is not known.")
        await page.get_by_label("Your key").fill(OPERATE)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="Why calls are blocked")).to_be_visible()


async def test_a_link_with_the_key_signs_in_and_the_key_leaves_the_address(browser, gate):
    async with visit(browser, gate, f"/#key={OPERATE}", signed_in=False, allowed=REFUSED) as page:
        await expect(page.get_by_role("heading", name="Why calls are blocked")).to_be_visible()
        assert page.url == f"{gate.server.url}/"


async def test_signing_out_ends_it(browser, gate):
    async with visit(browser, gate, allowed=REFUSED) as page:
        await page.get_by_role("button", name="Sign out").click()
        await expect(page).to_have_title("Sign in · ringfence")


async def test_a_session_that_has_ended_is_said_and_leads_to_signing_in(browser, gate):
    async with visit(browser, gate, allowed=REFUSED) as page:
        await expect(page.locator("#link")).to_have_text("Live")
        await page.context.clear_cookies()
        await page.locator("#notice").get_by_role("link", name="Sign in").click()
        await expect(page).to_have_title("Sign in · ringfence")


# --- The live calls -------------------------------------------------------------------------------------------------------------


async def test_before_the_first_call_it_says_that_none_has_come(browser, guarded):
    async with served(guarded) as fresh, visit(browser, fresh) as page:
        await expect(page.locator("#stream-state")).to_contain_text("Nothing has come yet")
        await expect(page.locator("#parties-empty")).to_have_text("Nothing has been decided yet.")
        await expect(page.locator("#blocked")).to_have_text("0")


async def test_a_blocked_call_appears_live_and_is_counted(browser, gate):
    async with visit(browser, gate) as page:
        await expect(page.locator("#link")).to_have_text("Live")
        there = await calls(page).count()
        record = await block(gate)
        await expect(calls(page)).to_have_count(there + 1)
        first = calls(page).first
        await expect(first).to_contain_text("Blocked")
        await expect(first).to_contain_text(f"{record['number'][:3]}*******{record['number'][-2:]}")
        await expect(first).to_contain_text("Duinstroom")
        await expect(page.locator("#parties tbody tr", has_text="Duinstroom")).to_be_visible()
        counted = gate.server.gateway.feed.statistics.snapshot(0.0).blocked
        await expect(page.locator("#blocked")).to_have_text(str(counted))


async def test_numbers_stay_masked(browser, gate):
    record = await block(gate)
    async with visit(browser, gate) as page:
        await expect(calls(page).first).to_be_visible()
        assert record["number"][1:] not in await page.content()


async def test_the_calls_can_be_filtered_and_the_choice_stands_in_the_address(browser, gate):
    await block(gate)
    approved = await approve(gate)
    async with visit(browser, gate) as page:
        await page.get_by_role("radio", name="Approved").check()
        await expect(calls(page).first).to_contain_text(approved["number"][-2:])
        await expect(page.locator("#calls .blocked")).to_have_count(0)
        await page.locator("#filters").get_by_role("radio", name="All", exact=True).check()
        await expect(page.locator("#calls .blocked").first).to_be_visible()
        await page.locator("#legend").get_by_role("button", name="objected").click()
        await expect(page.locator("#calls .approved")).to_have_count(0)
        assert page.url.endswith("/?show=all&reason=E_OBJECTION")
        await page.reload()
        await expect(page.get_by_role("combobox", name="Reason")).to_have_value("E_OBJECTION")
        await page.get_by_role("button", name="Clear").click()
        await expect(page.locator("#calls .approved").first).to_be_visible()


async def test_a_paused_list_stands_still_and_says_how_many_are_new(browser, gate):
    await block(gate)
    async with visit(browser, gate) as page:
        await expect(calls(page).first).to_be_visible()
        there = await calls(page).count()
        await page.get_by_role("button", name="Pause").click()
        await block(gate)
        await expect(page.get_by_role("button", name="Show 1 new")).to_be_visible()
        assert await calls(page).count() == there
        await page.get_by_role("button", name="Resume").click()
        await expect(calls(page)).to_have_count(there + 1)


async def test_a_lost_connection_is_said_and_what_was_missed_comes_after_it(browser, guarded):
    async with served(guarded) as first:
        address = f"127.0.0.1:{first.server.port}"
        async with visit(browser, first, allowed=f"{GONE}|{REFUSED}") as page:
            seen = await block(first)
            await expect(calls(page)).to_have_count(1)
            first.server.stop()
            await expect(page.locator("#notice")).to_contain_text("Trying again", timeout=15_000)
            missed = await guarded.client.decision((await put(guarded))["request_id"])
            async with served(guarded, gateway=address) as second:
                await expect(page.locator("#link")).to_have_text("Live", timeout=20_000)
                await expect(page.locator("#notice")).not_to_contain_text("Trying again")
                for record in (missed, seen):
                    await expect(calls(page).filter(has_text=f"*{record['number'][-2:]}")).to_have_count(1)
                assert second.server.url == first.server.url


async def put(guard: Running) -> dict[str, Any]:
    asked = request(numbers(1)[0])
    await guard.client.put("call-requests", asked)
    return asked


async def test_what_parties_are_called_is_text(browser, gate):
    await block(gate, advertiser_id="H")
    async with visit(browser, gate) as page:
        await expect(page.locator("#parties").get_by_role("button", name=HOSTILE)).to_be_visible()
        await expect(calls(page).first).to_contain_text(HOSTILE)
        assert await page.locator("main img").count() == 0


# --- The table ------------------------------------------------------------------------------------------------------------------


async def test_the_table_is_sorted_with_the_keyboard(browser, gate):
    await block(gate)
    await approve(gate)
    async with visit(browser, gate) as page:
        header = page.locator("#parties th[data-sort=name]")
        await expect(page.locator("#parties th[data-sort=blocked]")).to_have_attribute("aria-sort", "descending")
        for wanted in ("ascending", "descending"):
            await header.get_by_role("button").focus()
            await page.keyboard.press("Enter")
            await expect(header).to_have_attribute("aria-sort", wanted)
            names = await page.locator("#parties tbody .name").all_inner_texts()
            assert names == sorted(names, key=str.lower, reverse=wanted == "descending")
            assert len(names) > 1
        await expect(page.locator("#parties th[aria-sort]")).to_have_count(1)
        await page.get_by_role("radio", name="Campaigns").check()
        await expect(page.locator("#parties tbody tr")).to_have_count(1)


async def test_the_table_is_had_as_csv(browser, gate):
    await block(gate)
    async with visit(browser, gate) as page:
        async with page.expect_download() as download:
            await page.get_by_role("link", name="CSV").click()
        assert (await (await download.value).path()).read_text(encoding="utf-8").startswith("role,id,name,approved,blocked")


# --- Explaining -----------------------------------------------------------------------------------------------------------------


async def test_a_call_is_explained_with_the_keyboard_alone(browser, gate):
    await block(gate)
    async with visit(browser, gate) as page:
        await calls(page).first.focus()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("O-01")
        await expect(dialog).to_contain_text("E_OBJECTION")
        await expect(dialog).to_contain_text("Telecommunicatiewet")
        for _ in range(8):
            await page.keyboard.press("Tab")
            assert await page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
        await dialog.get_by_role("radio", name="NL").check()
        await expect(dialog.get_by_role("heading", name="Uitleg")).to_be_visible()
        await expect(dialog).to_have_attribute("lang", "nl")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        assert await page.evaluate("!!document.activeElement.closest('#calls')")


async def test_the_arrows_move_through_the_calls(browser, gate):
    await block(gate)
    await block(gate)
    async with visit(browser, gate) as page:
        await calls(page).nth(1).wait_for()
        await calls(page).first.focus()
        await page.keyboard.press("ArrowDown")
        assert await calls(page).nth(1).evaluate("element => element === document.activeElement")
        await expect(page.locator("#calls button[tabindex='0']")).to_have_count(1)


async def test_the_first_thing_that_the_keyboard_reaches_leads_to_the_calls(browser, gate):
    async with visit(browser, gate) as page:
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the live calls")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#stream")).to_be_focused()


# --- How it looks ---------------------------------------------------------------------------------------------------------------


async def test_a_phone_s_width_is_enough(browser, gate):
    await block(gate, advertiser_id="H")
    async with visit(browser, gate, viewport=PHONE, has_touch=True) as page:
        await expect(calls(page).first).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        await calls(page).first.tap()
        await expect(page.get_by_role("dialog")).to_contain_text("E_")
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert await page.locator("#explanation-body").evaluate("body => body.scrollWidth <= body.clientWidth")


#: Every text on the page whose contrast with what lies behind it is too low, by WCAG 2.2 (AA); transparent grounds are looked through.
LOW_CONTRAST = """() => {
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if ((colour[3] ?? 1) > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((element) => {
      const style = getComputedStyle(element);
      const [a, b] = [light(parse(element.closest("svg.chart") ? style.fill : style.color)), light(ground(element))];
      return [element.textContent.trim().slice(0, 30), style.color, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    })
    .filter(([, , contrast]) => contrast < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read_in_light_and_in_the_dark(browser, gate, scheme):
    await block(gate)
    async with visit(browser, gate, color_scheme=scheme) as page:
        await calls(page).first.wait_for()
        await page.locator("#legend li").first.wait_for()
        dark = await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"
        assert dark == (scheme == "dark")
        assert await page.evaluate(LOW_CONTRAST) == []
        await calls(page).first.click()
        await expect(page.get_by_role("dialog")).to_contain_text("O-01")
        assert await page.evaluate(LOW_CONTRAST) == []


async def test_nothing_moves_for_who_does_not_want_it(browser, gate):
    await block(gate)
    async with visit(browser, gate, reduced_motion="reduce") as page:
        await calls(page).first.wait_for()
        there = await calls(page).count()
        await block(gate)
        await expect(calls(page)).to_have_count(there + 1)
        await expect(calls(page).first).to_have_class("call fresh")
        assert await page.evaluate("document.getAnimations().length") == 0


@pytest.mark.slow
@pytest.mark.skipif(
    "RINGFENCE_TEST_PICTURE" not in os.environ, reason="no new docs/images/dashboard.png (RINGFENCE_TEST_PICTURE=SECONDS)"
)
async def test_the_picture_in_the_docs_is_that_of_the_demo(browser):
    """Opens the link that the demo prints, lets its day run for so many seconds, and takes the picture."""
    command = (sys.executable, "-m", "ops.cli", "demo", "--forever", "--rate", "40", "--workers", "2")
    demo = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=DEVNULL, stderr=PIPE)
    assert demo.stderr is not None
    try:
        link = ""
        while not link.startswith("dashboard: "):
            link = (await asyncio.wait_for(demo.stderr.readline(), 60)).decode()
            assert link, "the demo ended"
        page = await browser.new_page(viewport={"width": 1440, "height": 1000})
        await page.goto(link.removeprefix("dashboard: ").strip())
        await expect(page.locator("#link")).to_have_text("Live")
        await asyncio.sleep(float(os.environ["RINGFENCE_TEST_PICTURE"]))
        await expect(page.locator("#verdict-text")).to_have_text("The guard is working")
        await page.screenshot(path=ROOT / "docs" / "images" / "dashboard.png", animations="disabled")
        await page.close()
    finally:
        demo.send_signal(signal.SIGINT)
        await demo.communicate()
