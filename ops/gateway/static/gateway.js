// Asking the gateway, and saying when it does not answer.

import { $, h, put, say } from "./dom.js";

const PATIENCE_MS = 15_000;
const BACK_SHOWN_MS = 4_000;

const troubles = new Map();
let ended = false;
let backTimer = null;

/** The key is no longer good: nothing more can be had until somebody signs in. */
export class SessionEnded extends Error {}

/** The gateway answered that it cannot; `status` is the HTTP status. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Get JSON from the gateway. Throws SessionEnded, Refused, or what fetch throws if nothing answers in time. */
export async function getJson(path, patienceMs = PATIENCE_MS) {
  if (ended) throw new SessionEnded();
  const response = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(patienceMs) });
  if (response.status === 401 || response.status === 403) {
    endSession();
    throw new SessionEnded();
  }
  if (!response.ok) throw new Refused(response.status, await reasonOf(response));
  return response.json();
}

/** Say that a part of the page has no connection (a text), or has it again (null). */
export function report(part, text) {
  const troubled = troubles.size > 0;
  if (text === null) troubles.delete(part);
  else troubles.set(part, text);
  if (!ended) showBanner(troubled && troubles.size === 0);
}

/** Sign out here and at the gateway. */
export async function signOut() {
  await fetch("/logout", { method: "POST" }).catch(() => null);
  location.replace("/");
}

/** Show how the stream is connected: `wait`, `live` or `lost`. */
export function showLink(state, text) {
  put($("link"), "data-state", state);
  say($("link-text"), text);
}

async function reasonOf(response) {
  const problem = await response.json().catch(() => ({}));
  return problem.detail || problem.title || `HTTP ${response.status}`;
}

function endSession() {
  if (ended) return;
  ended = true;
  showLink("lost", "Signed out");
  document.body.classList.add("stale");
  $("notice").replaceChildren(
    h(
      "div",
      { class: "banner ended" },
      h("span", {}, "Your session has ended. What you see is no longer brought up to date."),
      h("a", { class: "button", href: "/" }, "Sign in"),
    ),
  );
  document.dispatchEvent(new CustomEvent("session-ended"));
}

function showBanner(back) {
  if (troubles.size === 0 && !back) return;
  clearTimeout(backTimer);
  // One is enough: without figures there is mostly no stream either.
  const banner = h(
    "div",
    { class: back ? "banner back" : "banner" },
    back ? "Connected again." : (troubles.get("figures") ?? [...troubles.values()].at(-1)),
  );
  if ($("notice").textContent !== banner.textContent) $("notice").replaceChildren(banner);
  if (back) backTimer = setTimeout(() => $("notice").replaceChildren(), BACK_SHOWN_MS);
}
