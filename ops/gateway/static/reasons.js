// The reasons of a stretch of time, put into bars and series: what chart.js draws.

const SERIES = 8;
const BARS_LEAST = 12;
const BARS_MOST = 60;

// A reason keeps its colour as long as it is among the first ones.
const colours = new Map();

/**
 * Put slots into bars and reasons into series.
 *
 * Returns {barS, bars, series, all, blocked}. A bar has start and end (ms), counts (one a series), blocked and approved. A series has a
 * code (null: several reasons together, `kinds` of them), a colour and a total. `all` has every reason, most frequent first.
 */
export function arranged(overview, rangeS) {
  const { every_s: everyS, reasons, blocked, approved } = overview.over_time;
  const each = Math.max(1, Math.round(rangeS / everyS / BARS_MOST));
  const length = blocked.length;
  // Slots are counted from the guard's start: bars keep their slots while time goes by.
  const last = Math.floor(overview.since_s / everyS);
  const started = Date.parse(overview.now) - overview.since_s * 1000;
  const lastBar = Math.floor(last / each);
  const firstKnown = Math.floor(Math.max(0, last - length + 1) / each);
  const firstBar = Math.max(lastBar - BARS_MOST + 1, Math.min(firstKnown, lastBar - BARS_LEAST + 1));
  const sumOf = (values, bar) => {
    let sum = 0;
    for (let slot = bar * each; slot < (bar + 1) * each; slot += 1) sum += values[slot - last + length - 1] ?? 0;
    return sum;
  };
  const numbers = Array.from({ length: lastBar - firstBar + 1 }, (_, position) => firstBar + position);
  const all = Object.entries(reasons)
    .map(([code, values]) => ({ code, perBar: numbers.map((bar) => sumOf(values, bar)) }))
    .map((reason) => ({ ...reason, total: added(reason.perBar) }))
    .filter((reason) => reason.total > 0)
    .sort((one, other) => other.total - one.total || one.code.localeCompare(other.code));
  const series = coloured(all.slice(0, SERIES));
  const others = all.slice(SERIES);
  if (others.length) {
    const perBar = numbers.map((_, position) => added(others.map((reason) => reason.perBar[position])));
    series.push({
      code: others.length === 1 ? others[0].code : null,
      colour: "series-other",
      perBar,
      total: added(perBar),
      kinds: others.length,
    });
  }
  const bars = numbers.map((bar, position) => ({
    start: started + bar * each * everyS * 1000,
    end: started + (bar + 1) * each * everyS * 1000,
    counts: series.map((one) => one.perBar[position]),
    blocked: sumOf(blocked, bar),
    approved: sumOf(approved, bar),
  }));
  return { barS: each * everyS, bars, series, all, blocked: added(bars.map((bar) => bar.blocked)) };
}

function coloured(firstOnes) {
  const shown = new Set(firstOnes.map((reason) => reason.code));
  for (const code of colours.keys()) if (!shown.has(code)) colours.delete(code);
  const free = Array.from({ length: SERIES }, (_, position) => `series-${position + 1}`).filter(
    (colour) => ![...colours.values()].includes(colour),
  );
  return firstOnes.map((reason) => {
    if (!colours.has(reason.code)) colours.set(reason.code, free.shift());
    return { ...reason, colour: colours.get(reason.code) };
  });
}

const added = (values) => values.reduce((sum, value) => sum + value, 0);
