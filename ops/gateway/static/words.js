// Words and figures for people: names of codes and parties as the gateway gives them, numbers, shares and times.

import { getJson } from "./gateway.js";

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1 });
const zone = { timeZone: "Europe/Amsterdam" };
const clock = new Intl.DateTimeFormat("en-GB", { ...zone, hour: "2-digit", minute: "2-digit", second: "2-digit" });
const short = new Intl.DateTimeFormat("en-GB", { ...zone, hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { ...zone, weekday: "short", day: "numeric", month: "short", year: "numeric" });

const codes = new Map();
const parties = new Map();

/** Learn the plain names of the codes. */
export async function learnCodes() {
  for (const [code, words] of Object.entries(await getJson("/v1/codes?lang=en"))) codes.set(code, words);
}

/** Whether the names of the codes are known. */
export const codesKnown = () => codes.size > 0;

/** A code's short name; the code itself as long as none is known. */
export const codeName = (code) => codes.get(code)?.name ?? code;

/** A code's name with a capital, as a heading. */
export const codeTitle = (code) => capital(codeName(code));

/** What a code means in a sentence, with the code. */
export const codeMeaning = (code) => [codes.get(code)?.meaning, code].filter(Boolean).join(" · ");

/** Every code that begins with one of some letters, in the gateway's order. */
export const codesOf = (...prefixes) => [...codes.keys()].filter((code) => prefixes.some((prefix) => code.startsWith(prefix)));

/** Learn the names of parties and campaigns from the attribution. Returns whether one is new. */
export function learnParties(list) {
  let learned = false;
  for (const party of list) {
    const name = party.name || party.party_id;
    learned ||= partyName(party.role, party.party_id) !== name;
    parties.set(`${party.role} ${party.party_id}`, name);
  }
  return learned;
}

/** The name of a party in a role, or its id. */
export const partyName = (role, id) => parties.get(`${role} ${id}`) ?? id;

/** What happened to a call: `approved`, `blocked` or `recalled`. */
export const outcomeOf = (record) => (record.kind === "recall" ? "recalled" : record.decision === "approved" ? "approved" : "blocked");

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
export const count = (number) => whole.format(number ?? 0);
export const rate = (number) => (number < 10 ? tenth : whole).format(number ?? 0);
export const percent = (part, all) => (all ? `${share(part / all)} %` : "–");
export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

/** Milliseconds in about three digits. */
export const millis = (ms) => (ms >= 10_000 ? [tenth.format(ms / 1000), "s"] : [(ms < 10 ? tenth : whole).format(ms), "ms"]);

export const timeOf = (instant) => shown(clock, instant);
export const minuteOf = (instant) => shown(short, instant);
export const momentOf = (instant) => (valid(instant) ? `${shown(day, instant)}, ${shown(clock, instant)}` : String(instant ?? "–"));

// 0.4 % of the calls is not "0 %", and 99.7 % is not all of them.
const share = (value) =>
  (value > 0 && value < 0.01) || (value > 0.99 && value < 1) ? tenth.format(value * 100) : whole.format(Math.round(value * 100));
const valid = (instant) => instant !== null && !Number.isNaN(new Date(instant).getTime());
const shown = (format, instant) => (valid(instant) ? format.format(new Date(instant)) : String(instant ?? "–"));
