// The guard at a glance: is it working, how many calls are blocked, how quickly, what waits.

import { $, h, put, say, svg } from "./dom.js";
import { count, millis, momentOf, percent, plural, rate, timeOf } from "./words.js";

const SPARK_SLOTS = 30;
const SPARK_LEAST = 12;
const MEASURED = {
  due_to_read: "from the moment a call was due",
  log_times: "by Kafka's log times",
  producer_times: "by the producers' time stamps",
};

/** Show an overview. */
export function showFigures(overview) {
  const { figures, over_time: overTime } = overview;
  const [state, text, detail] = verdict(overview);
  showVerdict(state, text, detail);
  document.title = state === "good" ? `ringfence: ${count(figures.blocked)} blocked` : `ringfence: ${text}`;
  say($("clock"), momentOf(overview.now));
  say($("blocked"), count(figures.blocked));
  say($("approved"), count(figures.approved));
  say(
    $("blocked-detail"),
    figures.decisions ? `${percent(figures.blocked, figures.decisions)} of ${count(figures.decisions)}` : "none yet",
  );
  say($("approved-detail"), figures.decisions ? percent(figures.approved, figures.decisions) : "none yet");
  put($("share"), "data-some", figures.decisions ? "" : null);
  $("share").firstElementChild.style.inlineSize = figures.decisions ? `${(100 * figures.blocked) / figures.decisions}%` : "0";
  const most = Math.max(1, ...overTime.blocked.slice(-SPARK_SLOTS), ...overTime.approved.slice(-SPARK_SLOTS));
  drawSpark($("blocked-spark"), overTime.blocked, most);
  drawSpark($("approved-spark"), overTime.approved, most);
  say($("recalls"), count(figures.recalls));
  say($("rate"), rate(figures.decisions_per_s));
  showLatency(figures);
  showLag(overview.workers);
  const rejected = Object.values(figures.rejected).reduce((sum, number) => sum + number, 0);
  say($("rejected-count"), count(rejected));
  say($("about"), `ringfence ${overview.version} · rulebook ${overview.rulebook} · counted for ${duration(overview.since_s)}`);
}

/** How many numbers are suspended; null if nobody knows. */
export function showSuspendedCount(number) {
  say($("suspended-count"), number === null ? "–" : count(number));
  put($("suspended-count").closest(".tile"), "data-alert", number ? "" : null);
}

/** Say that nobody knows how the guard is doing. */
export function showNoNews() {
  showVerdict("warn", "No news from the guard", "Whether it works is not known here.");
  document.title = "ringfence: no news";
}

function showVerdict(state, text, detail) {
  put($("verdict"), "data-state", state);
  put($("verdict").querySelector("use"), "href", `#mark-${state}`);
  say($("verdict-text"), text);
  say($("verdict-detail"), detail);
}

/** What a compliance officer wants to know first: state (good, warn, bad, wait), a sentence, and what it rests on. */
function verdict({ figures, trouble, workers, workers_trouble: workersTrouble }) {
  if (trouble) return ["bad", "The gateway sees nothing", `${trouble}. What stands below may be old.`];
  if (figures.contradictions) {
    const times = plural(figures.contradictions, "request has", "requests have");
    return [
      "bad",
      "The guard contradicts itself",
      `${times} a second decision that differs from the first. That must never happen: run ringfence audit.`,
    ];
  }
  if (!workers) return ["warn", "The workers cannot be seen", workersTrouble || "Redis does not say which workers there are."];
  if (workers.length === 0) return ["bad", "The guard is not running", "There is no worker: requests wait, and no call is approved."];
  const unready = workers.filter((worker) => !worker.ready);
  const ready = `${workers.length - unready.length} of ${plural(workers.length, "worker is", "workers are")} ready`;
  if (unready.length) {
    const why = [...new Set(unready.flatMap((worker) => worker.reasons.map((reason) => reason.text)))].join("; ");
    const text = unready.length === workers.length ? "The guard is not ready" : "Part of the guard is not ready";
    return [unready.length === workers.length ? "bad" : "warn", text, `${ready}: ${why}. While in doubt, it blocks.`];
  }
  if (figures.unreadable)
    return ["warn", "The guard is working", `${ready}, but ${plural(figures.unreadable, "record", "records")} could not be read here.`];
  if (!figures.decisions) return ["good", "The guard is ready", `${ready}. No request has come yet.`];
  return ["good", "The guard is working", `${ready}. Last decision at ${timeOf(figures.decided_at)}.`];
}

function showLatency(figures) {
  const latency = figures.latency_last_minute_ms ?? figures.latency_ms;
  if (!latency) {
    say($("latency"), "–");
    say($("latency-detail"), "not measured yet");
    return;
  }
  const [p50, unit] = millis(latency.p50);
  const [p99, unit99] = millis(latency.p99);
  const text = `${p50} ${unit}`;
  if ($("latency").textContent !== text) $("latency").replaceChildren(p50, h("span", { class: "unit" }, ` ${unit}`));
  const span = figures.latency_last_minute_ms ? "last minute" : "since the start";
  say($("latency-detail"), `typically; 99 % within ${p99} ${unit99}, ${span}`);
  put($("latency-detail"), "title", MEASURED[figures.latency_kind] ?? null);
}

function showLag(workers) {
  if (!workers) {
    say($("lag"), "–");
    say($("lag-detail"), "not known");
    return;
  }
  const lags = workers.flatMap((worker) => Object.entries(worker.lag ?? {}));
  const sum = (wanted) => lags.filter(([topic]) => wanted(topic)).reduce((total, [, records]) => total + records, 0);
  const requests = sum((topic) => topic === "call-requests");
  const facts = sum((topic) => topic !== "call-requests");
  const unit = requests === 1 ? "request" : "requests";
  say($("lag"), count(requests));
  say($("lag-detail"), facts ? `${unit}, and ${plural(facts, "fact", "facts")} to take in` : `${unit}; all facts are in`);
}

function drawSpark(element, values, most) {
  const shown = values.slice(-SPARK_SLOTS);
  const room = Math.max(SPARK_LEAST, shown.length);
  put(element, "viewBox", `0 0 ${room * 4} 36`);
  put(element, "preserveAspectRatio", "none");
  element.replaceChildren(
    ...shown.map((value, position) => {
      const height = value ? Math.max(1, (value / most) * 36) : 0;
      return svg("rect", { x: (room - shown.length + position) * 4, y: 36 - height, width: 3, height });
    }),
  );
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return plural(Math.floor(seconds), "second", "seconds");
  if (minutes < 120) return plural(minutes, "minute", "minutes");
  return plural(Math.floor(minutes / 60), "hour", "hours");
}
