// Which calls the stream shows. The choice stands in the address, so that a view can be kept as a bookmark.

import { $, h, keep, say } from "./dom.js";
import { codesOf, codeTitle, partyName } from "./words.js";

const NAMES = ["reason", "advertiser", "intermediary", "call_centre", "campaign"];
const SHOWN = { blocked: "decision=blocked", recalled: "kind=recall", approved: "decision=approved&kind=decision", all: "" };

/** The form of filters. `changed` is called with the new query of the stream. */
export function filters(changed) {
  const form = $("filters");
  restore(form);
  $("more-filters").open = NAMES.some((name) => form.elements[name].value) && matchMedia("(min-width: 40rem)").matches;

  function apply() {
    remember(form);
    const set = NAMES.filter((name) => form.elements[name].value).length;
    say($("filter-count"), set ? ` (${set} set)` : "");
    changed(query(form));
  }

  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", (event) => {
    event.preventDefault();
    for (const name of NAMES) form.elements[name].value = "";
    apply();
  });
  apply();

  return {
    /** Show the calls of a reason, party or campaign; again: no longer. */
    toggle(name, value) {
      const select = form.elements[name];
      option(select, value);
      select.value = select.value === value ? "" : value;
      if (select.value) $("more-filters").open = true;
      apply();
    },
    /** The reason that is chosen, or an empty text. */
    get reason() {
      return form.elements.reason.value;
    },
    /** Offer the codes and parties that are known. */
    offer(parties) {
      fill(
        form.elements.reason,
        codesOf("S_", "E_", "P_").map((code) => [code, codeTitle(code)]),
      );
      for (const name of NAMES.slice(1)) {
        const role = name.replace("_", " ");
        const ids = parties.filter((party) => party.role === role).map((party) => [party.party_id, partyName(role, party.party_id)]);
        fill(
          form.elements[name],
          ids.sort((one, other) => one[1].localeCompare(other[1])),
        );
      }
    },
  };
}

function query(form) {
  const wanted = new URLSearchParams(SHOWN[form.elements.show.value]);
  for (const name of NAMES) if (form.elements[name].value) wanted.append(name, form.elements[name].value);
  return wanted;
}

function restore(form) {
  const wanted = new URLSearchParams(location.search);
  if (wanted.get("show") in SHOWN) form.elements.show.value = wanted.get("show");
  for (const name of NAMES) {
    const value = wanted.get(name);
    if (!value) continue;
    option(form.elements[name], value);
    form.elements[name].value = value;
  }
}

function remember(form) {
  const wanted = new URLSearchParams();
  if (form.elements.show.value !== "blocked") wanted.set("show", form.elements.show.value);
  for (const name of NAMES) if (form.elements[name].value) wanted.set(name, form.elements[name].value);
  history.replaceState(null, "", wanted.size ? `?${wanted}` : location.pathname);
}

/** Options as they are offered; one that is chosen stays, also if nothing is known of it. An open list is not touched. */
function fill(select, offered) {
  if (document.activeElement === select) return;
  const chosen = select.value;
  const list = offered.some(([value]) => value === chosen) || !chosen ? offered : [...offered, [chosen, chosen]];
  keep(
    select,
    [["", "any"], ...list],
    ([value]) => value,
    ([value]) => h("option", { value }),
    (element, [, text]) => say(element, text),
  );
  select.value = chosen;
}

function option(select, value) {
  if (![...select.options].some((one) => one.value === value)) select.append(h("option", { value, "data-key": value }, value));
}
