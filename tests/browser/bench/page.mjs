// The page that tells what was measured.

/** Figure, what it is, the most or least that it should be, and its unit. */
const TARGETS = [
  ["first_row_ms_10000", "first row at 10,000 runs", "<=", 1000, "ms"],
  ["first_row_ms_100000", "first row at 100,000 runs", "<=", 1000, "ms"],
  ["kb_before_first_row", "transferred before it", "<=", 400, "kB"],
  ["requests_before_first_row", "requests before it", "<=", 8, ""],
  ["longest_task_ms", "longest task", "<=", 100, "ms"],
  ["dom_elements", "elements of the document", "<=", 1500, ""],
  ["filter_ms", "from a keystroke in the filter to the painted result, at 100,000 runs", "<=", 100, "ms"],
  ["dropped_frames_pct", "frames dropped while scrolling", "<=", 5, "%"],
  ["heap_mb", "memory of the page at 100,000 runs", "<=", 60, "MB"],
  ["brotli_kb", "the whole console, compressed", "<=", 350, "kB"],
  ["lighthouse_performance", "Lighthouse, performance", ">=", 95, ""],
  ["lighthouse_accessibility", "Lighthouse, accessibility", ">=", 100, ""],
];

const holds = (value, operator, target) => (operator === "<=" ? value <= target : value >= target);
const count = (number) => number.toLocaleString("en-GB");
const ms = (number) => `${Math.round(number)} ms`;
const task = (number) => (number > 0 ? ms(number) : "under 50 ms");
const kb = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
const mb = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** The page, as Markdown. */
export function write({ figures, sizes, audits, version, cores, loads, audited, refresh }) {
  const rows = TARGETS.map(([name, what, operator, target, unit]) => {
    const verdict = holds(figures[name], operator, target) ? "held" : "**missed**";
    return `| ${what} | ${count(figures[name])} ${unit} | ${operator === "<=" ? "≤" : "≥"} ${count(target)} ${unit} | ${verdict} |`;
  });
  const missed = TARGETS.filter(([name, , operator, target]) => !holds(figures[name], operator, target));
  const row = (what, read) => `| ${what} | ${sizes.map(read).join(" | ")} |`;
  const spread = (numbers) => `${Math.round(Math.min(...numbers))} to ${ms(Math.max(...numbers))}`;
  return `# Benchmark of the console

Written by \`cargo xtask bench console\` on a machine with ${cores} cores, with Chromium ${version} and the console on the same ones, and
nothing throttled. The service is simulated: \`tests/src/bin/simulated_service.rs\` makes up its runs as it lists them. The host
has read them all before the first load.

| | measured | target | |
| --- | --- | --- | --- |
${rows.join("\n")}

${missed.length === 0 ? "Every target is held." : `Missed: ${missed.map(([, what]) => what).join("; ")}.`}

## How

Each load is in a new browser context, so that no cache is warm, and whose window has had two seconds to open: Chromium draws parts of it by
programs of its own, which would run beside the page. The figures are medians of ${loads} loads. The first row counts from
the start of the navigation to the task after the frame that has a row of the table in it. Bytes and requests are what
the browser's network log had until then, headers and the event stream among them. Tasks under 50 ms are not told by the browser.
The longest is the longest of loading, filtering and scrolling. The filter's time is the median over ${sizes[1].filter.length} keys, each from its event to the task after
the frame with another list; keys follow each other only when the list stands still. Frames are counted by
\`requestAnimationFrame\` while the wheel turns. Memory is JavaScript's used heap after a collection, and all of the
memory of the program in wasm. Lighthouse ${audits.version} is run with its desktop preset, which simulates a line of 10 Mbit/s; the marks are medians of
${audited}.

## In detail

| | ${sizes.map((size) => `${count(size.runs)} runs`).join(" | ")} |
| --- | ${sizes.map(() => "---").join(" | ")} |
${[
    row("first row, median", (size) => ms(size.firstRow)),
    row("first row, from best to worst", (size) => spread(size.firstRows)),
    row("transferred before it", (size) => kb(size.bytes)),
    row("requests before it", (size) => size.requests),
    row("longest task while loading", (size) => task(size.longest.load)),
    row("longest task while filtering", (size) => task(size.longest.filter)),
    row("longest task while scrolling", (size) => task(size.longest.scroll)),
    row("elements after loading", (size) => count(size.elements.load)),
    row("elements after scrolling", (size) => count(size.elements.scrolled)),
    row("a keystroke in the filter, from best to worst", (size) => spread(size.filter)),
    row("frames dropped while scrolling", (size) => `${size.dropped.toFixed(1)} %`),
    row("frames dropped while nothing happens", (size) => `${size.still.toFixed(1)} %`),
    row("JavaScript's heap", (size) => mb(size.heap.script)),
    row("memory of the wasm", (size) => mb(size.heap.wasm)),
    row(`transferred in ${refresh / 1000} s while no run changes`, (size) => kb(size.refresh.none.bytes)),
    row(`transferred in ${refresh / 1000} s in which one run changes`, (size) => kb(size.refresh.one.bytes)),
  ].join("\n")}

${audits.failed.length === 0 ? "Lighthouse has nothing to say." : `What Lighthouse marks down: ${audits.failed.join("; ")}.`}

As JSON:

\`\`\`json
${JSON.stringify(figures)}
\`\`\`
`;
}
