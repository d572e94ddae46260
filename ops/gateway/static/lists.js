// What an operator looks after: workers and why one is not ready, suspended numbers, rejected records.

import { $, h, keep, mark, say } from "./dom.js";
import { count, momentOf, plural, timeOf } from "./words.js";

/** The workers, by the last look. */
export function showWorkers({ workers, workers_trouble: trouble }) {
  fill($("workers"), workers, (worker) => worker.id, workerParts);
  say($("workers-note"), noteOf(workers, trouble || "Redis does not say which workers there are.", "No worker is running."));
}

/** The suspended numbers; null if the gateway cannot say, and why. */
export function showSuspended(answer, trouble) {
  fill($("suspended-list"), answer?.suspended, (one) => `${one.number} ${one.since} ${one.causes.at(-1)?.id}`, suspendedParts);
  say($("suspended-note"), answer?.trouble ?? noteOf(answer?.suspended, trouble, "No number is suspended."));
}

/** The newest rejected records; null if the gateway cannot say, and why. */
export function showRejected(answer, trouble) {
  fill($("rejected-list"), answer?.rejected, (one) => one.id, rejectedParts);
  say($("rejected-note"), noteOf(answer?.rejected, trouble, "No record was rejected."));
}

function workerParts(worker) {
  const state = worker.ready ? "good" : "bad";
  const seen = worker.ready ? null : `last seen ${timeOf(worker.seen_at)}`;
  const doing = [plural(worker.partitions?.length ?? 0, "partition", "partitions"), waiting(worker.lag ?? {}), seen];
  return [
    head(h("span", { class: `state-${state}` }, mark(state), worker.ready ? "Ready" : "Not ready"), h("span", {}, worker.id)),
    (worker.reasons ?? []).map((reason) => h("p", {}, h("code", {}, reason.code), ` ${reason.text}`)),
    muted(...doing),
    muted(worker.host, `since ${momentOf(worker.started_at)}`, `version ${worker.version}`),
  ];
}

function suspendedParts(one) {
  const newest = one.causes.at(-1);
  const more = one.causes.length > 1 ? `, and ${plural(one.causes.length - 1, "other record", "other records")}` : "";
  return [
    head(h("span", {}, one.number), one.confirmed ? null : h("span", { class: "state-warn" }, mark("warn"), "not confirmed")),
    newest ? h("p", {}, `${newest.topic} ${newest.id} could not be used (${newest.code})${more}`) : null,
    muted(`since ${momentOf(one.since)}`, "blocked until it is released"),
  ];
}

function rejectedParts(one) {
  return [
    head(h("span", {}, one.topic), h("code", {}, one.error.code)),
    h("p", {}, [one.error.field, one.error.message].filter(Boolean).join(": ")),
    muted(one.id, one.key, momentOf(one.rejected_at)),
  ];
}

const head = (...parts) => h("p", { class: "head" }, parts);
const muted = (...texts) => h("p", { class: "muted" }, texts.filter(Boolean).join(" · "));
const noteOf = (items, trouble, none) => (items ? (items.length ? "" : none) : trouble);

function fill(list, items, keyOf, parts) {
  const make = () => h("li");
  keep(list, items ?? [], keyOf, make, (element, item) => {
    const now = h("li", { "data-key": element.dataset.key }, parts(item));
    if (!now.isEqualNode(element)) element.replaceChildren(...now.childNodes);
  });
}

function waiting(lag) {
  const behind = Object.entries(lag).filter(([, records]) => records);
  return behind.length ? `behind: ${behind.map(([topic, records]) => `${topic} ${count(records)}`).join(", ")}` : "nothing waits";
}
