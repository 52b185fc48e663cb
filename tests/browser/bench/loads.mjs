// One cold load of the console, and what is measured in it.
import { openConsole } from "../support/browser.mjs";

/** How long a new window is left to itself before the page is opened in it, in milliseconds. */
const WINDOW = 2000;

/** Runs in the page before anything of it: notes long tasks, the first row, and the memory of wasm. */
function watch() {
  const seen = { longest: 0, firstRow: 0, memory: null };
  window.__seen = seen;
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) seen.longest = Math.max(seen.longest, task.duration);
  }).observe({ type: "longtask", buffered: true });
  // A task after the frame in which the row was in the document: by then it is painted.
  window.__painted = (then) => requestAnimationFrame(() => setTimeout(then));
  const rows = new MutationObserver(() => {
    if (!document.querySelector('[data-testid="run-row"]')) return;
    rows.disconnect();
    window.__painted(() => (seen.firstRow = performance.now()));
  });
  rows.observe(document, { childList: true, subtree: true });
  for (const name of ["instantiate", "instantiateStreaming"]) {
    const original = WebAssembly[name];
    WebAssembly[name] = async (...args) => {
      const made = await original.apply(WebAssembly, args);
      // By its kind: a console that was made short has other names.
      const exports = Object.values((made.instance ?? made).exports);
      seen.memory = exports.find((each) => each instanceof WebAssembly.Memory) ?? seen.memory;
      return made;
    };
  }
}

/** What went over the network, by when. */
export class Traffic {
  constructor(cdp) {
    this.requests = new Map();
    this.received = [];
    const of = (id) => this.requests.get(id);
    cdp.on("Network.requestWillBeSent", ({ requestId, request, timestamp }) => {
      if (!request.url.startsWith("data:")) this.requests.set(requestId, { url: request.url, at: timestamp, bytes: 0 });
    });
    const take = (requestId, bytes, at) => {
      const request = of(requestId);
      if (!request || bytes <= 0) return;
      request.bytes += bytes;
      this.received.push({ at, bytes, url: request.url });
    };
    cdp.on("Network.responseReceived", ({ requestId, response, timestamp }) =>
      take(requestId, response.encodedDataLength, timestamp));
    cdp.on("Network.dataReceived", ({ requestId, encodedDataLength, timestamp }) =>
      take(requestId, encodedDataLength, timestamp));
    cdp.on("Network.loadingFinished", ({ requestId, encodedDataLength, timestamp }) =>
      take(requestId, encodedDataLength - (of(requestId)?.bytes ?? encodedDataLength), timestamp));
  }

  /** Requests begun, and bytes received, up to so many milliseconds after the first request. */
  until(milliseconds) {
    const begun = Math.min(...[...this.requests.values()].map((request) => request.at));
    const end = begun + milliseconds / 1000;
    return {
      requests: [...this.requests.values()].filter((request) => request.at <= end).length,
      bytes: sum(this.received.filter((piece) => piece.at <= end)),
    };
  }

  /** Bytes received since this was last called, and in how many requests. */
  take() {
    const taken = { bytes: sum(this.received), requests: new Set(this.received.map((piece) => piece.url)).size };
    this.received = [];
    return taken;
  }
}

const sum = (pieces) => pieces.reduce((bytes, piece) => bytes + piece.bytes, 0);

/** Opens the console in a new context, with an empty cache, and waits for its first row. */
export async function load(browser, url) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 } });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  await page.addInitScript(watch);
  // The window itself is a program that starts: who opens a page has had a browser before.
  await page.waitForTimeout(WINDOW);
  const cdp = await context.newCDPSession(page);
  const traffic = new Traffic(cdp);
  await cdp.send("Network.enable");
  await openConsole(page, url);
  await page.waitForFunction(() => window.__seen.firstRow > 0);
  // What comes after the first row may still be heavy.
  await page.waitForTimeout(1500);
  return { context, page, cdp, traffic };
}

export const seen = (page) => page.evaluate(() => ({ longest: window.__seen.longest, firstRow: window.__seen.firstRow }));

/** Forgets the longest task so far. */
export const forget = (page) => page.evaluate(() => (window.__seen.longest = 0));

export const elements = (page) => page.evaluate(() => document.querySelectorAll("*").length);

/** Bytes that the page holds: JavaScript's objects, and the memory of the program in wasm. */
export async function heap(page, cdp) {
  await cdp.send("HeapProfiler.collectGarbage");
  const { usedSize } = await cdp.send("Runtime.getHeapUsage");
  const wasm = await page.evaluate(() => window.__seen.memory?.buffer.byteLength ?? 0);
  if (!wasm) throw new Error("the memory of the console's wasm is not known");
  return { script: usedSize, wasm };
}

/** Milliseconds from a key's event to the frame with another list on it. */
export async function keystroke(page, key) {
  await page.evaluate(() => {
    const state = () =>
      [...document.querySelectorAll('[data-testid="runs-total"], [data-testid="run-row"]')]
        .map((node) => node.dataset.runId ?? node.textContent)
        .join("\n");
    window.__took = new Promise((resolve) => {
      addEventListener("keydown", (event) => {
        const [begun, before] = [event.timeStamp, state()];
        const list = new MutationObserver(() => {
          if (state() === before) return;
          list.disconnect();
          window.__painted(() => resolve(performance.now() - begun));
        });
        list.observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
      }, { capture: true, once: true });
    });
  });
  await page.keyboard.press(key);
  const took = await Promise.race([
    page.evaluate(() => window.__took),
    new Promise((resolve) => setTimeout(resolve, 10_000)),
  ]);
  if (took === undefined) throw new Error(`the list has not changed after the key ${key}`);
  // Whatever else this key began is over before the next.
  await page.waitForTimeout(500);
  return took;
}

/** How many of the frames there should have been were not, in per cent, over so many seconds; while scrolling, or not. */
export async function dropped(page, seconds, scroll) {
  await page.evaluate(() => {
    const times = (window.__frames = []);
    const frame = (time) => window.__frames === times && (times.push(time), requestAnimationFrame(frame));
    requestAnimationFrame(frame);
  });
  if (scroll) {
    const table = page.locator('[data-testid="runs-scroller"]');
    const box = (await table.count()) > 0 ? await table.boundingBox() : { x: 0, y: 300, width: 1280, height: 500 };
    await page.mouse.move(box.x + box.width / 2, box.y + Math.min(box.height, 500) / 2);
    const end = Date.now() + seconds * 1000;
    while (Date.now() < end) {
      await page.mouse.wheel(0, 120);
      await page.waitForTimeout(12);
    }
  } else {
    await page.waitForTimeout(seconds * 1000);
  }
  return page.evaluate(() => {
    const times = window.__frames;
    window.__frames = null;
    const gaps = times.slice(1).map((time, n) => time - times[n]);
    const usual = [...gaps].sort((a, b) => a - b)[gaps.length >> 1];
    // Where most frames were late, the usual gap is not what a screen shows: it shows 60 a second.
    const frame = Math.min(usual, 1000 / 60);
    const missed = gaps.reduce((count, gap) => count + Math.max(0, Math.round(gap / frame) - 1), 0);
    return (100 * missed) / (missed + gaps.length);
  });
}
