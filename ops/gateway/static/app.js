// The dashboard: asks for the figures again and again, follows the stream, and ties the parts of the page together.

import { reasonsOverTime } from "./chart.js";
import { $ } from "./dom.js";
import { explanations } from "./explain.js";
import { showFigures, showNoNews, showSuspendedCount } from "./figures.js";
import { filters } from "./filters.js";
import { getJson, Refused, report, SessionEnded, signOut } from "./gateway.js";
import { showRejected, showSuspended, showWorkers } from "./lists.js";
import { liveCalls } from "./stream.js";
import { attribution } from "./table.js";
import { codesKnown, learnCodes, learnParties, timeOf } from "./words.js";

const FIGURES_EVERY_MS = 2_000;
// These read a topic of Kafka's: seldom, and soon after a record was rejected.
const LISTS_EVERY_MS = 30_000;
const LISTS_LEAST_MS = 5_000;

const calls = liveCalls(explanations());
const chart = reasonsOverTime((code) => choice.toggle("reason", code));
const table = attribution((role, id) => choice.toggle(role.replace(" ", "_"), id));
const choice = filters((query) => {
  chart.choose(query.get("reason") ?? "");
  calls.watch(query);
});

let shownAt = null;
let listsAt = 0;
let rejectedSeen = null;

async function showOverview() {
  const learnedCodes = !codesKnown() && (await learnCodes().then(() => true, forgive));
  let overview;
  try {
    overview = await getJson("/v1/overview");
  } catch (error) {
    forgive(error);
    document.body.classList.add("stale");
    const old = shownAt === null ? "" : ` The figures are those of ${timeOf(shownAt)}.`;
    showNoNews();
    report("figures", `${cannotSay(error)} Trying again.${old}`);
    return;
  }
  const { parties, rejected } = overview.figures;
  const learnedParties = learnParties(parties);
  showFigures(overview);
  showWorkers(overview);
  chart.show(overview);
  table.show(parties);
  choice.offer(parties);
  if (learnedCodes || learnedParties) calls.rename();
  document.body.classList.remove("stale");
  report("figures", null);
  shownAt = overview.now;
  await showLists(rejected);
}

async function showLists(rejected) {
  const seen = JSON.stringify(rejected);
  const age = performance.now() - listsAt;
  if (listsAt && age < (seen === rejectedSeen ? LISTS_EVERY_MS : LISTS_LEAST_MS)) return;
  [listsAt, rejectedSeen] = [performance.now(), seen];
  await Promise.all([
    getJson("/v1/quarantine").then(
      (answer) => {
        showSuspended(answer);
        showSuspendedCount(answer.suspended.length);
      },
      (error) => {
        showSuspended(null, cannotSay(error));
        showSuspendedCount(null);
      },
    ),
    getJson("/v1/rejected?limit=50").then(showRejected, (error) => showRejected(null, cannotSay(error))),
  ]);
}

/** As long as the page is looked at. */
async function follow() {
  for (;;) {
    if (document.hidden) await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
    await showOverview();
    await new Promise((passed) => setTimeout(passed, FIGURES_EVERY_MS));
  }
}

/** Go on without an answer, unless nothing more can be had. */
function forgive(error) {
  if (error instanceof SessionEnded) throw error;
  return false;
}

function cannotSay(error) {
  return error instanceof Refused ? `The gateway cannot say: ${error.message}.` : "The gateway does not answer.";
}

$("logout").addEventListener("click", signOut);
follow().catch((error) => {
  if (error instanceof SessionEnded) return;
  report("page", "This page has failed and shows old figures. Load it again.");
  throw error;
});
