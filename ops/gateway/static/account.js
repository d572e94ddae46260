// An explanation as the gateway words it, put on the page. Every word is the gateway's; a part that is not there is left out.

import { h } from "./dom.js";
import { capital } from "./words.js";

const KINDS = [
  ["reason", "reasons", "blocked"],
  ["basis", "basis", "approved"],
  ["warning", "warnings", "warning"],
];

/** The elements that tell an explanation. */
export function account(explanation) {
  const labels = explanation.labels ?? {};
  const recalls = list(explanation.recalls);
  return [
    h("p", { class: "headline" }, text(explanation.headline)),
    recalls.map((recall) =>
      h("section", {}, h("h3", {}, `${labels.recalls ?? ""} · ${text(recall.decided_at?.on)}`), told(recall, labels, "h4")),
    ),
    told(explanation.decided, labels, "h3"),
    h("section", {}, h("h3", {}, text(labels.decision)), summary(explanation, labels)),
    others(explanation, labels),
  ];
}

function summary(explanation, labels) {
  const decided = explanation.decided ?? {};
  const rows = [
    ...list(explanation.parties).map((party) => [labels[party.role] ?? party.role, party.shown ?? party.id]),
    [labels.campaign, explanation.campaign_id],
    [labels.dial_at, explanation.dial_at?.on],
    [labels.decided_at, decided.decided_at?.on],
    [labels.valid_until, explanation.valid_until?.on],
    [labels.regime, [explanation.regime?.name, explanation.regime?.text].filter(Boolean).join(": ")],
    [labels.rulebook, decided.rulebook],
    [labels.record, decided.at],
    [labels.check, [explanation.check?.text, explanation.check?.difference].filter(Boolean).join(" ")],
  ];
  return h(
    "dl",
    { class: "facts" },
    rows.filter(([, value]) => value).map(([label, value]) => [h("dt", {}, text(label)), h("dd", {}, text(value))]),
  );
}

/** One record, decision or recall: its reasons, its basis, its warnings, and what could not be told. */
function told(one, labels, heading) {
  const points = list(one?.points);
  const sections = KINDS.map(([kind, label, tone]) => {
    const of = points.filter((point) => point.kind === kind);
    return of.length
      ? h(
          "section",
          {},
          h(heading, {}, text(labels[label])),
          of.map((point) => item(point, tone, labels)),
        )
      : null;
  });
  const notes = list(one?.notes);
  return [
    ...sections,
    notes.length
      ? h(
          "section",
          {},
          h(heading, {}, text(labels.notes)),
          notes.map((note) => h("p", {}, text(note.text))),
        )
      : null,
  ];
}

function item(point, tone, labels) {
  const remedy = tone === "approved" ? labels.remedy_basis : labels.remedy;
  return h(
    "article",
    { class: `item ${tone}` },
    h("p", { class: "title" }, capital(text(point.name)), " ", h("code", { class: "tag" }, text(point.code))),
    h("p", {}, text(point.meaning)),
    part(
      labels.missing,
      list(point.missing).map((missing) => text(missing)),
    ),
    part(labels.facts, list(point.facts).map(fact)),
    part(
      labels.looked_at,
      list(point.looked_at).map((looked) => [
        h("span", { class: "muted" }, `${capital([looked.source_text, looked.label].filter(Boolean).join(", "))}: `),
        text(looked.value),
      ]),
    ),
    part(labels.rules, list(point.rules).map(ruled)),
    point.remedy ? h("div", { class: "remedy" }, h("p", { class: "label" }, text(remedy)), h("p", {}, text(point.remedy))) : null,
  );
}

function part(label, items) {
  return items.length
    ? [
        label ? h("p", { class: "label" }, label) : null,
        h(
          "ul",
          {},
          items.map((one) => h("li", {}, one)),
        ),
      ]
    : null;
}

function fact(one) {
  const details = list(one.details).map((detail) => `${text(detail.label)}: ${text(detail.value)}`);
  const where = [one.event_id, one.place].filter(Boolean).join(" · ");
  return [
    h("p", {}, capital([one.title, one.on].filter(Boolean).join(" · "))),
    details.length ? h("p", { class: "muted" }, details.join("; ")) : null,
    h("p", { class: "muted" }, h("code", {}, where)),
  ];
}

function ruled(rule) {
  const sources = list(rule.sources).map(
    (source) => `${text(source.ref)}: ${[source.level_text, source.checked_on].filter(Boolean).join(", ")}`,
  );
  return [
    h("p", {}, h("code", {}, text(rule.id)), ` ${text(rule.title)} `, h("span", { class: "tag" }, text(rule.severity_text))),
    sources.map((source) => h("p", { class: "muted small" }, source)),
  ];
}

function others(explanation, labels) {
  const places = list(explanation.others);
  return places.length ? h("section", {}, h("h3", {}, text(labels.others)), h("p", {}, h("code", {}, places.join(", ")))) : null;
}

const list = (value) => (Array.isArray(value) ? value : []);
const text = (value) => (value === null || value === undefined ? "" : String(value));
