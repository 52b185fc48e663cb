// A real Chromium, and what a person does in it.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { required } from "./retinker.mjs";

/** A browser that is closed after the test; every error that a page reports fails the test. */
export async function openBrowser(t) {
  const browser = await chromium.launch({
    executablePath: required("RETINKER_CHROMIUM"),
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  t.after(() => browser.close());
  return browser;
}

/** A new tab on this address; what went wrong in it is in `page.problems`. */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  await openConsole(page, url);
  return page;
}

/** To the address that `up` printed. Waits until the console has taken the token out of it: who goes on before that
 * leaves the token behind, as the page's load event comes before the console's wasm runs. */
export async function openConsole(page, url) {
  await page.goto(url);
  await page.waitForURL((now) => !now.hash.includes("token="));
}

export const byTestId = (page, id) => page.locator(`[data-testid="${id}"]`);

/** The row of a run, once it has this health. */
export function runRow(page, runId, health) {
  return page.locator(`[data-testid="run-row"][data-run-id="${runId}"][data-health="${health}"]`);
}

/** To the list, and from there to a run's page. */
export async function openRun(page, runId, health) {
  await page.goto(new URL("/", page.url()).href);
  const row = runRow(page, runId, health);
  await row.waitFor().catch(async (error) => {
    throw new Error(`${runId} never was ${health}. The page says: ${await page.locator("body").innerText()}`, { cause: error });
  });
  await row.locator("a").first().click();
  await page.waitForURL(/\/runs\//);
}

/** Holds what the page asks of this address on its way, until the function that it gives is called, which lets it arrive
 * unless it is told to have it break off; the first `free` times it is let through. */
export async function holdBack(page, address, free = 0) {
  let go;
  const held = new Promise((resolve) => (go = resolve));
  await page.route(address, async (route) => {
    free -= 1;
    if (free < 0 && (await held) === "break off") await route.abort();
    else await route.continue();
  });
  return go;
}

/** Keeps a picture where RETINKER_SCREENSHOTS says; elsewhere does nothing. */
export async function picture(page, name) {
  const dir = process.env.RETINKER_SCREENSHOTS;
  if (!dir) return;
  await mkdir(dir, { recursive: true });
  await page.screenshot({ path: join(dir, `${name}.png`), fullPage: true });
}
