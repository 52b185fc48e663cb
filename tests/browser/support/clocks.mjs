// Tabs whose clock is wrong, or that slept; and whether the times that a page tells are those that they are.
import assert from "node:assert/strict";

import { until } from "./retinker.mjs";

export const DAY = 24 * 3_600_000;

/** Makes every page of this context take another time for now, by so many milliseconds. */
export const putWrong = (context, wrong) =>
  context.addInitScript((wrong) => {
    const Right = Date;
    globalThis.Date = class extends Right {
      constructor(...args) {
        super(...(args.length > 0 ? args : [Right.now() + wrong]));
      }
      static now() {
        return Right.now() + wrong;
      }
    };
  }, wrong);

/** Makes the page believe that nobody sees it, or that somebody does. */
export async function show(page, seen) {
  await page.evaluate((seen) => {
    Object.defineProperty(document, "visibilityState", { value: seen ? "visible" : "hidden", configurable: true });
    Object.defineProperty(document, "hidden", { value: !seen, configurable: true });
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
  }, seen);
}

/** Waits until the page says so of itself: live (or, where that takes many answers, read once), paused, stale. */
export const state = (page, wanted) => {
  const states = wanted === "live" ? ["live", "once"] : [wanted];
  return page.locator(states.map((one) => `[data-testid="freshness"][data-state="${one}"]`).join(", ")).waitFor();
};

const UNITS = { s: 1000, min: 60_000, h: 3_600_000, d: DAY };
/** Clocks that are no further apart count as one, and a page tells the time once a second. */
const SLACK = 15_000;

/** Between how many milliseconds from now something is that is told so; nothing for words that tell no time. */
function told(text) {
  if (text === "just now") return [-5000, 60_000];
  if (text === "expired") return [-Infinity, 0];
  if (text === "in less than a second") return [0, 1000];
  const ago = text.match(/^(\d+) (s|min|h|d) ago$/);
  if (ago) return [-(Number(ago[1]) + 1) * UNITS[ago[2]], -Number(ago[1]) * UNITS[ago[2]]];
  const parts = [...text.matchAll(/(\d+) (s|min|h|d)\b/g)];
  if (!/^in /.test(text) || parts.length === 0) return null;
  const from = parts.reduce((sum, [, number, unit]) => sum + Number(number) * UNITS[unit], 0);
  return [from, from + UNITS[parts.at(-1)[2]]];
}

/** What is said of a point in time, and is wrong now. */
function isWrong({ datetime, text }) {
  const at = Date.parse(datetime);
  if (/^\d\d:\d\d:\d\d$/.test(text)) return new Date(at).toTimeString().slice(0, 8) !== text;
  const span = told(text);
  if (!span) return true;
  const ahead = at - Date.now();
  return ahead < span[0] - SLACK || ahead > span[1] + SLACK;
}

/** Fails unless every time on the page is, or in a moment will be, told as what it is by the right clock. */
export async function assertTimes(page, what, least = 1) {
  let wrong = [];
  const right = until("the right times", async () => {
    const times = await page.locator("time:visible").evaluateAll((all) =>
      all.map((time) => ({ datetime: time.getAttribute("datetime"), text: time.innerText.trim() })));
    wrong = times.length < least ? times : times.filter(isWrong);
    return times.length >= least && wrong.length === 0;
  }, 20);
  await right.catch(() => assert.fail(`${what} at ${new Date().toISOString()}: ${JSON.stringify(wrong)}`));
  assert.doesNotMatch(await page.locator("body").innerText(), /NaN|Invalid|-\d+ (second|minute|hour|day)/, what);
}

/** The point in time that is told in full, as in `2026-11-24 00:30:05 UTC+01:00`. */
export function exact(text) {
  const [, day, time, zone] = text.match(/(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC([+-]\d\d:\d\d)?/);
  return Date.parse(`${day}T${time}${zone ?? "Z"}`);
}
