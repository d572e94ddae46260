// What the colours of the chart mean: a ranking of the reasons, each of which filters the live calls; and the chart as a table.

import { $, h, keep, put, say } from "./dom.js";
import { codeMeaning, codeTitle, count, plural, timeOf } from "./words.js";

/** The name of a series: its reason's, or how many reasons it takes together. */
export const seriesName = (one) => (one.code === null ? `${one.kinds} other reasons` : codeTitle(one.code));

/** The ranking. `choose` is called with a code whose calls are to be shown. */
export function legend(choose) {
  let open = false;
  let last = [];

  function show(arranged, chosen) {
    last = [arranged, chosen];
    const { series, all, blocked } = arranged;
    const named = series.filter((one) => one.code !== null);
    const colours = new Map(named.map((one) => [one.code, one.colour]));
    const most = Math.max(1, ...named.map((one) => one.total));
    const fill = (item, reason) => fillRow(item, reason, { colour: colours.get(reason.code) ?? "series-other", most, blocked, chosen });
    keep(
      $("legend"),
      open ? all : named,
      (reason) => reason.code,
      (reason) => makeRow(reason, choose),
      fill,
    );
    const rest = series.find((one) => one.code === null);
    $("legend-all").hidden = !rest;
    say($("legend-all"), open || !rest ? "Show fewer reasons" : `${seriesName(rest)}: ${count(rest.total)}`);
    $("why-empty").hidden = series.length > 0;
  }

  $("legend-all").addEventListener("click", () => {
    open = !open;
    show(...last);
  });
  return { show };
}

/** The bars of the chart as rows, newest first. */
export function showTable({ bars, series, barS }) {
  const [head, body] = [$("why-table").querySelector("thead"), $("why-table").querySelector("tbody")];
  const names = ["Blocked calls", ...series.map(seriesName)];
  const span = barS < 60 ? `${barS} s from` : `${plural(barS / 60, "minute", "minutes")} from`;
  head.replaceChildren(row(span, names, (name) => h("th", { scope: "col", class: "amount" }, name), "col"));
  const rows = bars.map((bar) =>
    row(timeOf(bar.start), [bar.blocked, ...bar.counts], (value) => h("td", { class: "amount" }, count(value))),
  );
  body.replaceChildren(...rows.reverse());
}

const row = (title, values, cell, scope = "row") => h("tr", {}, h("th", { scope }, title), values.map(cell));

function makeRow(reason, choose) {
  const parts = [h("span", { class: "swatch" }), h("span", { class: "title" }), h("span", { class: "count" })];
  const weight = h("span", { class: "weight" }, h("span"));
  return h("li", {}, h("button", { class: "legend-row", type: "button", click: () => choose(reason.code) }, parts, weight));
}

function fillRow(item, reason, { colour, most, blocked, chosen }) {
  const button = item.firstElementChild;
  const name = codeTitle(reason.code);
  put(item, "class", colour);
  say(button.querySelector(".title"), name);
  say(button.querySelector(".count"), count(reason.total));
  button.querySelector(".weight span").style.inlineSize = `${(100 * reason.total) / most}%`;
  put(button, "title", codeMeaning(reason.code));
  put(button, "aria-label", `${name}: ${count(reason.total)} of ${plural(blocked, "blocked call", "blocked calls")}`);
  put(button, "aria-pressed", String(reason.code === chosen));
}
