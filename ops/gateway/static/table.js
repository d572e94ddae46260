// For whom: approved and blocked by party and campaign. Sortable by its headers; a name filters the live calls.

import { $, h, keep, put, say } from "./dom.js";
import { capital, count, percent } from "./words.js";

const ROWS_AT_FIRST = 12;
const BY = {
  name: (party) => (party.name || party.party_id).toLocaleLowerCase(),
  role: (party) => party.role,
  approved: (party) => party.approved,
  blocked: (party) => party.blocked,
  share: (party) => party.blocked / (party.approved + party.blocked || 1),
};

/** The attribution table. `choose` is called with a role and an id whose calls are to be shown. */
export function attribution(choose) {
  const table = $("parties");
  let parties = [];
  let sorted = { by: "blocked", down: true };
  let all = false;

  function show() {
    const role = $("roles").querySelector("input:checked").value;
    const rows = parties.filter((party) => role === "" || party.role === role).sort(order(sorted));
    keep(
      table.tBodies[0],
      all ? rows : rows.slice(0, ROWS_AT_FIRST),
      (party) => `${party.role} ${party.party_id}`,
      (party) => makeRow(party, choose),
      fillRow,
    );
    table.classList.toggle("one-role", role !== "");
    $("parties-empty").hidden = rows.length > 0;
    table.hidden = rows.length === 0;
    $("parties-all").hidden = rows.length <= ROWS_AT_FIRST;
    say($("parties-all"), all ? `Show the first ${ROWS_AT_FIRST}` : `Show all ${count(rows.length)}`);
    for (const header of table.querySelectorAll("th[data-sort]")) {
      put(header, "aria-sort", header.dataset.sort === sorted.by ? (sorted.down ? "descending" : "ascending") : null);
    }
  }

  table.tHead.addEventListener("click", (event) => {
    const by = event.target.closest("th[data-sort]")?.dataset.sort;
    if (!by) return;
    // Amounts begin with the greatest, words with a.
    sorted = { by, down: sorted.by === by ? !sorted.down : !["name", "role"].includes(by) };
    show();
  });
  $("roles").addEventListener("change", show);
  $("parties-all").addEventListener("click", () => {
    all = !all;
    show();
  });

  return {
    show(next) {
      parties = next;
      show();
    },
  };
}

function order({ by, down }) {
  const value = BY[by];
  return (one, other) => {
    const [a, b] = [value(one), value(other)];
    const first = typeof a === "string" ? a.localeCompare(b) : a - b;
    return (down ? -first : first) || BY.name(one).localeCompare(BY.name(other)) || one.role.localeCompare(other.role);
  };
}

function makeRow(party, choose) {
  const name = h("button", {
    class: "name",
    type: "button",
    title: "Show these calls",
    click: () => choose(party.role, party.party_id),
  });
  return h(
    "tr",
    {},
    h("td", {}, name, h("span", { class: "under" }, party.role)),
    h("td", { class: "role muted" }, capital(party.role)),
    h("td", { class: "amount approved-count" }),
    h("td", { class: "amount blocked-count" }),
    h(
      "td",
      { class: "amount" },
      h("div", { class: "share-cell" }, h("span", { class: "bar", "aria-hidden": "true" }, h("span")), h("span", { class: "percent" })),
    ),
  );
}

function fillRow(row, party) {
  const total = party.approved + party.blocked;
  say(row.querySelector(".name"), party.name || party.party_id);
  put(row, "title", party.name && party.name !== party.party_id ? party.party_id : null);
  say(row.querySelector(".approved-count"), count(party.approved));
  say(row.querySelector(".blocked-count"), count(party.blocked));
  say(row.querySelector(".percent"), percent(party.blocked, total));
  row.querySelector(".bar span").style.inlineSize = `${total ? (100 * party.blocked) / total : 0}%`;
}
