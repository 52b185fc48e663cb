// Measures the console in a real Chromium on services of 10,000 and 100,000 runs, cold each time, throttled by nothing.
// Writes docs/bench-console.md; the last line on standard output is one JSON object. `cargo xtask bench console` runs it.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { fileURLToPath } from "node:url";

import lighthouse, { desktopConfig } from "lighthouse";
import { chromium } from "playwright-core";

import { openBrowser } from "../support/browser.mjs";
import { freePort, required } from "../support/retinker.mjs";
import { Simulated, consoleOn } from "../support/simulated.mjs";
import { dropped, elements, forget, heap, keystroke, load, seen } from "./loads.mjs";
import { write } from "./page.mjs";

const LOADS = 7;
const AUDITS = 3;
const SECONDS = 5;
/** How long a console is left alone to see what its refreshes transfer: its slowest question comes every 15 s. */
const REFRESH = 16_000;
/** What is in the field, and the keys that are then pressed: each of them leaves another list. */
const TYPED = [
  ["", ["q", "Backspace", "k", "Backspace", "y", "Backspace"]],
  ["name:rl-math-0", ["0", "1", "2", "Backspace"]],
  ["health:healthy rank>=1", ["6", "Backspace"]],
];

const root = fileURLToPath(new URL("../../../", import.meta.url));
const cleanups = [];
/** What the support files know of a test: what is to be done after it. */
const t = { after: (work) => cleanups.unshift(work) };

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
const say = (text) => process.stderr.write(`${text}\n`);

try {
  const browser = await openBrowser(t);
  const version = browser.version();
  const sizes = [];
  for (const runs of [10_000, 100_000]) sizes.push(await measure(browser, runs));
  await browser.close();
  const [small, large] = sizes;
  const audits = await audit(large.url);
  const round = (number, digits = 0) => Number(number.toFixed(digits));
  const worst = (read) => Math.max(...sizes.map(read));
  const figures = {
    first_row_ms_10000: round(small.firstRow),
    first_row_ms_100000: round(large.firstRow),
    kb_before_first_row: round(worst((size) => size.bytes) / 1000, 1),
    requests_before_first_row: worst((size) => size.requests),
    longest_task_ms: round(worst((size) => Math.max(size.longest.load, size.longest.filter, size.longest.scroll))),
    dom_elements: worst((size) => Math.max(size.elements.load, size.elements.scrolled)),
    filter_ms: round(median(large.filter)),
    dropped_frames_pct: round(worst((size) => size.dropped), 1),
    heap_mb: round((large.heap.script + large.heap.wasm) / 1e6, 1),
    brotli_kb: round((await compressed()) / 1000, 1),
    lighthouse_performance: audits.performance,
    lighthouse_accessibility: audits.accessibility,
  };
  const text = write({ figures, sizes, audits, version, cores: cpus().length, loads: LOADS, audited: AUDITS, refresh: REFRESH });
  await writeFile(join(root, "docs/bench-console.md"), text);
  process.stdout.write(`${text}\n${JSON.stringify(figures)}\n`);
} finally {
  for (const cleanup of cleanups) await cleanup();
}

/** Everything that is measured on so many runs. */
async function measure(browser, runs) {
  say(`${runs} runs`);
  const service = await Simulated.start(t, ["--runs", runs]);
  const retinker = await consoleOn(t, service.url, runs);
  const loads = [];
  for (let n = 0; n < LOADS; n += 1) {
    const { context, page, traffic } = await load(browser, retinker.consoleUrl);
    const { firstRow, longest } = await seen(page);
    loads.push({ firstRow, longest, ...traffic.until(firstRow), elements: await elements(page) });
    await context.close();
  }
  const of = (read) => median(loads.map(read));
  const { context, page, cdp, traffic } = await load(browser, retinker.consoleUrl);

  say("  refreshes");
  const refreshed = async (changed) => {
    traffic.take();
    if (changed) await service.touch(changed);
    await page.waitForTimeout(REFRESH);
    return traffic.take();
  };
  const refresh = { none: await refreshed(0), one: await refreshed(1) };

  say("  the filter");
  await forget(page);
  const filter = [];
  const field = page.locator('[data-testid="runs-search"]');
  for (const [text, keys] of TYPED) {
    await field.fill(text);
    await page.waitForTimeout(1500);
    await field.press("End");
    for (const key of keys) filter.push(await keystroke(page, key));
  }
  await field.fill("");
  await page.waitForTimeout(1500);
  const filterTask = (await seen(page)).longest;

  say("  scrolling");
  await forget(page);
  const still = await dropped(page, SECONDS, false);
  const scrolling = await dropped(page, SECONDS, true);
  const scrollTask = (await seen(page)).longest;
  const result = {
    runs,
    url: retinker.consoleUrl,
    firstRow: of((one) => one.firstRow),
    firstRows: loads.map((one) => one.firstRow),
    bytes: of((one) => one.bytes),
    requests: of((one) => one.requests),
    longest: { load: of((one) => one.longest), filter: filterTask, scroll: scrollTask },
    elements: { load: of((one) => one.elements), scrolled: await elements(page) },
    filter,
    still,
    dropped: scrolling,
    refresh,
    heap: await heap(page, cdp),
  };
  await context.close();
  return result;
}

/** Lighthouse's marks, as its desktop preset gives them. */
async function audit(url) {
  say("Lighthouse");
  const marks = [];
  for (let n = 0; n < AUDITS; n += 1) {
    const port = await freePort();
    const browser = await chromium.launch({
      executablePath: required("RETINKER_CHROMIUM"),
      args: ["--no-sandbox", "--disable-gpu", `--remote-debugging-port=${port}`],
    });
    try {
      const options = { port, logLevel: "error", onlyCategories: ["performance", "accessibility"] };
      const { lhr } = await lighthouse(url, options, desktopConfig);
      const mark = (category) => Math.round(100 * lhr.categories[category].score);
      const failed = Object.values(lhr.audits).filter((one) =>
        one.score !== null && one.score < 0.9 &&
        Object.values(lhr.categories).some((c) => c.auditRefs.some((ref) => ref.id === one.id && ref.weight > 0)));
      marks.push({
        performance: mark("performance"),
        accessibility: mark("accessibility"),
        failed: failed.map((one) => `${one.id}${one.displayValue ? ` (${one.displayValue})` : ""}`),
        version: lhr.lighthouseVersion,
      });
    } finally {
      await browser.close();
    }
  }
  return {
    performance: median(marks.map((mark) => mark.performance)),
    accessibility: median(marks.map((mark) => mark.accessibility)),
    failed: [...new Set(marks.flatMap((mark) => mark.failed))],
    version: marks[0].version,
  };
}

/** Bytes of the whole console, compressed as it is served. */
async function compressed() {
  const dist = join(root, "dist");
  const names = (await readdir(dist, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && entry.name !== ".built")
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const done = names.filter((name) => name.endsWith(".br"));
  const files = await Promise.all((done.length > 0 ? done : names).map((name) => readFile(name)));
  return files.reduce((bytes, file) => bytes + (done.length > 0 ? file : brotliCompressSync(file)).length, 0);
}
