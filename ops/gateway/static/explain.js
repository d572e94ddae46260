// The explanation of one call in a dialog. The browser's own dialog keeps the focus, closes on Escape, and gives the focus back.

import { account } from "./account.js";
import { $, h, mark, say } from "./dom.js";
import { getJson, Refused, SessionEnded } from "./gateway.js";
import { outcomeOf, timeOf } from "./words.js";

// The gateway reads the log for it, and gives up after thirty seconds.
const PATIENCE_MS = 35_000;
// What the dialog says by itself; the explanation's words are the gateway's.
const WORDS = {
  en: {
    title: "Explanation",
    close: "Close",
    approved: "Approved",
    blocked: "Blocked",
    recalled: "Recalled",
    wait: "Looking it up in the log …",
    gone: "The log no longer holds a decision of this request.",
    cannot: "The gateway cannot explain this now.",
    again: "Try again",
    call: "The call",
    record: "The record",
  },
  nl: {
    title: "Uitleg",
    close: "Sluiten",
    approved: "Goedgekeurd",
    blocked: "Geblokkeerd",
    recalled: "Teruggeroepen",
    wait: "Wordt opgezocht in het logboek …",
    gone: "Het logboek bevat geen besluit over dit verzoek meer.",
    cannot: "De gateway kan dit nu niet uitleggen.",
    again: "Opnieuw proberen",
    call: "Het gesprek",
    record: "Het record",
  },
};

/** The dialog. Returns what opens it for a call: its record and its event's id. */
export function explanations() {
  const dialog = $("explanation");
  const body = $("explanation-body");
  let call = null;
  let asked = 0;

  async function show() {
    const ours = (asked += 1);
    const lang = $("language").querySelector("input:checked").value;
    const words = WORDS[lang];
    dialog.lang = lang;
    say($("explanation-title"), words.title);
    say($("explanation-close"), words.close);
    body.setAttribute("aria-busy", "true");
    fill(words, outcomeOf(call.record), h("p", { class: "muted" }, words.wait));
    const query = new URLSearchParams({ lang, at: call.id });
    const shown = await getJson(`/v1/decisions/${encodeURIComponent(call.record.request_id)}/explanation?${query}`, PATIENCE_MS).then(
      (explanation) => [explanation.outcome, account(explanation, words.call)],
      (error) => [null, trouble(error, words)],
    );
    if (ours !== asked) return; // another call, or language, was asked for meanwhile
    body.removeAttribute("aria-busy");
    const [outcome, parts] = shown;
    const record = h("details", {}, h("summary", {}, words.record), h("pre", {}, JSON.stringify(call.record, null, 2)));
    fill(words, outcome in words ? outcome : outcomeOf(call.record), parts, record);
  }

  function fill(words, outcome, ...parts) {
    const which = [call.record.number, timeOf(call.record.decided_at), call.record.request_id].join(" · ");
    const whole = h(
      "div",
      {},
      h("p", { class: `said ${outcome}` }, mark(outcome), words[outcome]),
      h("p", { class: "muted" }, which),
      parts,
    );
    body.replaceChildren(whole);
  }

  function trouble(error, words) {
    if (error instanceof SessionEnded) return h("p", { class: "trouble" }, h("a", { href: "/" }, "Sign in"));
    if (error instanceof Refused && error.status === 404) return h("p", { class: "trouble" }, words.gone);
    const why = error instanceof Refused ? h("p", {}, error.message) : null;
    return [h("p", { class: "trouble" }, words.cannot), why, h("button", { type: "button", click: show }, words.again)];
  }

  $("language").addEventListener("change", show);
  $("explanation-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it: what it holds covers all of it
  });

  return (next) => {
    call = next;
    dialog.showModal();
    body.scrollTop = 0;
    show();
  };
}
