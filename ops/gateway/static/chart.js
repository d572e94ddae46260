// Why calls are blocked: reasons over time as stacked bars, which a pointer reads out.

import { $, put, say, svg } from "./dom.js";
import { legend, seriesName, showTable } from "./legend.js";
import { arranged } from "./reasons.js";
import { count, minuteOf, plural, timeOf } from "./words.js";

const EDGE = { left: 40, right: 8, top: 10, bottom: 22 };
const GAP = 1.5;
const LABEL_PX = { time: 72, minute: 50 };
const STEPS_S = [10, 30, 60, 120, 300, 600, 900, 1800, 3600];

/** The section on reasons. `choose` is called with a code whose calls are to be shown. */
export function reasonsOverTime(choose) {
  let overview = null;
  let chosen = "";
  let shown = null;
  let pointed = null;
  const ranking = legend(choose);

  function show() {
    if (!overview) return;
    const past = overview.over_time.blocked.length * overview.over_time.every_s > 600;
    $("range").hidden = !past;
    shown = arranged(overview, past ? Number($("range").querySelector("input:checked").value) : 600);
    draw();
    ranking.show(shown, chosen);
    if ($("why-table").open) showTable(shown);
  }

  function draw() {
    const width = $("chart").clientWidth;
    const height = $("chart").clientHeight;
    if (!shown || !width || !height) return;
    drawBars($("chart"), shown, width, height, pointed);
    say($("chart-readout"), pointed === null || !shown.bars[pointed] ? summary(shown) : readout(shown, shown.bars[pointed]));
  }

  function point(event) {
    const box = $("chart").getBoundingClientRect();
    const share = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
    const bar = Math.floor(share * (shown?.bars.length ?? 0));
    pointed = share >= 0 && share < 1 ? bar : null;
    draw();
  }

  new ResizeObserver(draw).observe($("chart"));
  $("chart").addEventListener("pointermove", point);
  $("chart").addEventListener("pointerdown", point);
  $("chart").addEventListener("pointerleave", () => {
    pointed = null;
    draw();
  });
  $("range").addEventListener("change", show);
  $("why-table").addEventListener("toggle", show);

  return {
    show(next) {
      overview = next;
      show();
    },
    choose(code) {
      chosen = code;
      show();
    },
  };
}

function drawBars(chart, { bars, series, barS }, width, height, pointed) {
  const inner = { width: width - EDGE.left - EDGE.right, height: height - EDGE.top - EDGE.bottom };
  const most = Math.max(...bars.map((bar) => sum(bar.counts)));
  const ticks = ticksTo(most);
  const top = ticks.at(-1);
  const y = (value) => EDGE.top + inner.height * (1 - value / top);
  const step = inner.width / bars.length;
  const x = (position) => EDGE.left + position * step;
  const parts = ticks.flatMap((tick) => [
    svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
    svg("text", { x: EDGE.left - 6, y: y(tick) + 4, "text-anchor": "end" }, count(tick)),
  ]);
  const room = (seconds) => (seconds < 60 ? LABEL_PX.time : LABEL_PX.minute);
  const every = STEPS_S.find((seconds) => (seconds / barS) * step >= room(seconds)) ?? STEPS_S.at(-1);
  const write = every < 60 ? timeOf : minuteOf;
  let labelled = 0;
  for (const [position, bar] of bars.entries()) {
    if (position === pointed)
      parts.push(svg("rect", { class: "pointed", x: x(position), y: EDGE.top, width: step, height: inner.height }));
    let below = 0;
    for (const [index, one] of series.entries()) {
      const value = bar.counts[index];
      if (!value) continue;
      const size = y(below) - y(below + value);
      parts.push(
        svg("rect", {
          class: one.colour,
          x: x(position),
          y: y(below + value),
          width: Math.max(1, step - GAP),
          height: Math.max(0.5, size - (size > 3 ? 1 : 0)),
        }),
      );
      below += value;
    }
    // A label stands where the clock passes a full step, and none is cut off at the edges.
    const passes = Math.ceil(bar.start / (every * 1000)) * every * 1000;
    const at = x(position) + ((passes - bar.start) / (barS * 1000)) * step;
    if (passes < bar.end && at > EDGE.left + 12 && at < width - 28 && at - labelled >= room(every) * 0.9) {
      parts.push(svg("text", { x: at, y: height - 6, "text-anchor": "middle" }, write(passes)));
      labelled = at;
    }
  }
  put(chart, "viewBox", `0 0 ${width} ${height}`);
  chart.replaceChildren(chart.firstElementChild, ...parts); // the first is the title
}

function summary({ series, bars, barS, blocked }) {
  const each = barS < 60 ? `${barS} seconds` : plural(barS / 60, "minute", "minutes");
  const span = `Reasons in each ${each}, ${minuteOf(bars[0].start)} to ${minuteOf(bars.at(-1).end)}.`;
  return series.length ? `${span} ${plural(blocked, "blocked call", "blocked calls")}; a call may have several reasons.` : span;
}

function readout({ series }, bar) {
  const reasons = series
    .map((one, index) => [one, bar.counts[index]])
    .filter(([, value]) => value)
    .map(([one, value]) => `${seriesName(one)} ${count(value)}`);
  return [
    `${timeOf(bar.start)} to ${timeOf(bar.end)}: ${count(bar.blocked)} blocked, ${count(bar.approved)} approved`,
    ...reasons,
  ].join(" · ");
}

/** Three to five round values from 0 to at least `most`. */
function ticksTo(most) {
  const rough = Math.max(1, most) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((factor) => factor * power >= rough) * power);
  return Array.from({ length: Math.ceil(Math.max(1, most) / step) + 1 }, (_, position) => position * step);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
