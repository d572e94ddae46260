// The calls as they are decided, newest first. The list stands still while somebody points at it or moves through it.

import { $, h, mark, put, say } from "./dom.js";
import { getJson, report, showLink } from "./gateway.js";
import { capital, codeTitle, count, momentOf, outcomeOf, partyName, timeOf } from "./words.js";

const KEPT = 200;
const REMEMBERED = 5_000;
const SHOW_EVERY_MS = 400;
const AGAIN_MS = 3_000;
const LOST = "The connection to the gateway is lost; trying again. The calls shown may not be the latest.";
// Up to so many at once are seen to arrive; a flicker of more tells nobody anything.
const FRESH_MOST = 4;

/** The live list. `open` is called with a call (its record and event id) that is to be explained. */
export function liveCalls(open) {
  const list = $("calls");
  let source = null;
  let query = new URLSearchParams();
  let waiting = []; // newest last
  let unseen = 0;
  let paused = false;
  let pointed = false;
  let opened = false; // the stream answered at least once
  let timer = null;
  let again = null;
  let over = false;
  const records = new WeakMap();
  const had = new Set(); // places of events in the log

  const held = () => pointed || list.scrollTop > 0 || list.querySelector(":focus-visible") !== null || $("explanation").open;

  function connect() {
    if (over) return;
    source?.close();
    clearTimeout(again);
    list.replaceChildren();
    waiting = [];
    had.clear();
    unseen = 0;
    opened = false;
    showLink("wait", "Connecting");
    const wanted = new URLSearchParams(query);
    wanted.set("recent", KEPT);
    source = new EventSource(`/v1/decisions/stream?${wanted}`);
    source.onopen = () => {
      opened = true;
      showLink("live", "Live");
      report("stream", null);
      showState();
    };
    source.addEventListener("decision", take);
    source.addEventListener("recall", take);
    source.onerror = () => lost(source);
    showState();
  }

  /** The browser connects again by itself and asks for what it missed, unless it was refused: then we look why, and begin anew. */
  function lost(which) {
    if (over || which !== source) return;
    showLink("lost", "Reconnecting");
    report("stream", LOST);
    showState();
    if (which.readyState !== EventSource.CLOSED) return;
    again = setTimeout(async () => {
      // A session that has ended shows here, as an event stream does not say why it was refused.
      await getJson("/v1/overview").catch(() => null);
      connect();
    }, AGAIN_MS);
  }

  function take(event) {
    let record;
    try {
      record = JSON.parse(event.data);
    } catch {
      return;
    }
    // After a reconnection the stream begins a little earlier than it broke off.
    const place = event.lastEventId.split("~")[0];
    if (had.has(place)) return;
    had.add(place);
    if (had.size > REMEMBERED) had.delete(had.values().next().value);
    waiting.push({ record, id: event.lastEventId });
    if (waiting.length > KEPT) waiting.shift();
    unseen += 1;
    timer ??= setTimeout(show, list.childElementCount === 0 ? 50 : SHOW_EVERY_MS);
  }

  function show() {
    clearTimeout(timer);
    timer = null;
    if (waiting.length && !paused && !held()) showWaiting();
    showState();
  }

  function showWaiting() {
    const fresh = list.childElementCount > 0 && waiting.length <= FRESH_MOST;
    waiting.sort((one, other) => Date.parse(one.record.decided_at) - Date.parse(other.record.decided_at));
    list.prepend(...waiting.map((call) => item(call, fresh)).reverse());
    while (list.childElementCount > KEPT) list.lastElementChild.remove();
    waiting = [];
    unseen = 0;
    reach(list.querySelector("button"));
  }

  function item(call, fresh) {
    const button = h("button", { type: "button", class: fresh ? "call fresh" : "call", tabindex: "-1", click: () => open(call) });
    button.append(...described(call.record));
    records.set(button, call.record);
    return h("li", {}, button);
  }

  /** Make a button the one that Tab reaches; the arrows reach the others. */
  function reach(button) {
    for (const other of list.querySelectorAll('button[tabindex="0"]')) put(other, "tabindex", "-1");
    if (button) put(button, "tabindex", "0");
  }

  function showState() {
    say($("stream-state"), state());
    say($("pause"), paused ? "Resume" : "Pause");
    $("newer").hidden = unseen === 0 || !(paused || held());
    say($("newer"), `Show ${count(unseen)} new`);
  }

  function state() {
    if (paused) return "Paused";
    if (held() && unseen) return "Held still while you look";
    const shown = list.childElementCount || waiting.length;
    if (shown) return shown === 1 ? "One call" : `The last ${count(shown)}, newest first`;
    if (!opened) return "Waiting for the gateway";
    const narrowed = [...query.keys()].some((name) => !["decision", "kind"].includes(name));
    return narrowed ? "No call of this kind has come yet." : "Nothing has come yet. Calls appear here the moment they are decided.";
  }

  function move(event) {
    const buttons = [...list.querySelectorAll("button")];
    const here = buttons.indexOf(document.activeElement);
    const steps = { ArrowDown: here + 1, ArrowUp: here - 1, PageDown: here + 10, PageUp: here - 10, Home: 0, End: buttons.length - 1 };
    if (here < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = buttons[Math.min(Math.max(steps[event.key], 0), buttons.length - 1)];
    reach(next);
    next.focus();
  }

  list.addEventListener("keydown", move);
  list.addEventListener("focusin", (event) => reach(event.target));
  list.addEventListener("focusout", () => setTimeout(show));
  list.addEventListener("pointerenter", (event) => {
    pointed = event.pointerType === "mouse";
  });
  list.addEventListener("pointerleave", () => {
    pointed = false;
    show();
  });
  list.addEventListener("scroll", () => {
    if (list.scrollTop === 0) show();
  });
  $("newer").addEventListener("click", () => {
    showWaiting();
    list.scrollTop = 0;
    list.querySelector("button").focus();
    showState();
  });
  $("explanation").addEventListener("close", () => setTimeout(show));
  $("pause").addEventListener("click", () => {
    paused = !paused;
    show();
  });
  document.addEventListener("session-ended", () => {
    over = true;
    source?.close();
    clearTimeout(again);
  });

  return {
    /** Begin anew with another query. */
    watch(next) {
      query = next;
      connect();
    },
    /** Names have become known: write the calls that stand there again. */
    rename() {
      for (const button of list.querySelectorAll("button")) button.replaceChildren(...described(records.get(button)));
    },
  };
}

function described(record) {
  const outcome = outcomeOf(record);
  const codes = record.reasons?.length ? record.reasons : [record.basis].filter(Boolean);
  const whom = [partyName("advertiser", record.advertiser_id)];
  if (record.intermediary_id) whom.push(`through ${partyName("intermediary", record.intermediary_id)}`);
  if (record.call_centre_id) whom.push(`by ${partyName("call centre", record.call_centre_id)}`);
  return [
    h("span", { class: `outcome-word ${outcome}` }, mark(outcome), ` ${capital(outcome)} `),
    h("span", { class: "tel" }, record.number, " "),
    h("time", { datetime: record.decided_at, title: momentOf(record.decided_at) }, timeOf(record.decided_at)),
    h("span", { class: "what" }, codes.map(codeTitle).join(" · ")),
    h("span", { class: "whom" }, `${whom.join(" ")} · ${partyName("campaign", record.campaign_id)}`),
  ];
}
