// What is done on the console of a service of 100,000 runs: on one service and one console, since it takes time to start them.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { byTestId, holdBack, openBrowser, openPage, picture } from "./support/browser.mjs";
import { temporaryDir, until } from "./support/retinker.mjs";
import { Simulated, consoleOn, writeRestores } from "./support/simulated.mjs";

const RUNS = 100_000;
/** Most ids that a selection takes at once. */
const MOST = 10_000;
/** Restores that the journal knows from before. */
const RESTORES = 2_000;
/** Runs that lose their state together: those from this number on, and one more while somebody looks. */
const [FIRST_LOST, LOST] = [20, 499];
const ROW = 54;

const told = (page, id, text) =>
  page.waitForFunction(([id, text]) => document.querySelector(`[data-testid="${id}"]`)?.textContent === text, [id, text]);
const commas = (number) => number.toLocaleString("en-US");
/** What a failed request leaves in the browser's console is what is to be expected of it. */
const unexpected = (problems) => problems.filter((problem) => !/Failed to load resource/.test(problem));

/** Answers of the host to many questions of one kind, so many at a time. */
async function windows(retinker, path, from, to) {
  const rows = [];
  for (let offset = from; offset <= to; offset += 1_000) {
    const { body } = await retinker.host(`${path}&offset=${offset}&limit=${Math.min(1_000, to - offset + 1)}`);
    rows.push(...body.rows);
  }
  return rows;
}

/** The runs from one place of the list to another, both with it. */
const runsBetween = (retinker, query, from, to) => windows(retinker, `runs?${query}`, from, to);
const idsBetween = async (...args) => (await runsBetween(...args)).map((row) => row.run.training_run_id);

test("what is done with a hundred thousand runs", async (t) => {
  const journal = await temporaryDir(t);
  // The newest are asked for things all the time, and their sessions last; the others' have ended.
  const [service] = await Promise.all([
    Simulated.start(t, ["--runs", RUNS, "--every", "0"]),
    writeRestores(journal, RESTORES),
  ]);
  await Promise.all(Array.from({ length: LOST }, (_, n) => service.poison(FIRST_LOST + n)));
  const retinker = await consoleOn(t, service.url, RUNS, ["--journal", journal]);
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl, { permissions: ["clipboard-read", "clipboard-write"] });

  const grid = byTestId(page, "runs-scroller");
  const rowAt = (at) => page.locator(`[data-testid="run-row"][aria-rowindex="${at + 2}"]`);
  const box = (at) => rowAt(at).locator("input");
  const go = (path) => page.goto(new URL(path, retinker.consoleUrl).href);
  /** Scrolls until the row at this place is the first that is seen. */
  const look = async (at) => {
    await grid.evaluate((frame, top) => frame.scrollTo(0, top), at * ROW);
    await rowAt(at).waitFor();
  };
  /** The ids of the selected runs, in the order in which they were selected. */
  const selected = async () => {
    await page.evaluate(() => navigator.clipboard.writeText("nothing yet"));
    await page.getByRole("button", { name: "Copy the selected runs' ids" }).click();
    const copied = () => page.evaluate(() => navigator.clipboard.readText());
    return (await until("the copied ids", async () => (await copied()) !== "nothing yet" && copied())).split("\n");
  };
  /** Selects from the anchor to this row, whose range the page does not hold; waits until it is so many. */
  const selectTo = async (at, count) => {
    const asked = page.waitForRequest((request) => request.url().includes("/run-ids?"));
    await box(at).click({ modifiers: ["Shift"] });
    assert.match((await asked).url(), /anchor=/, "the host tells what is between");
    await told(page, "selected-count", `${commas(count)} runs selected`);
  };

  await t.test("a range is what is between two runs beyond the ten thousandth, both ways and in another order", async () => {
    await go("/?sort=name");
    const anchor = 50_003;
    await look(anchor - 3);
    await box(anchor).check();
    // Somewhere else, so that the run is not held any more when the other end is looked at.
    await look(0);
    await look(anchor + 25);
    await selectTo(anchor + 30, 31);
    assert.deepEqual((await selected()).sort(), (await idsBetween(retinker, "sort=name", anchor, anchor + 30)).sort());
    await picture(page, "many-range");
    await look(0);
    await look(anchor - 70);
    await selectTo(anchor - 68, 31 + 68);
    const around = await runsBetween(retinker, "sort=name", anchor - 68, anchor + 30);
    const ids = around.map((row) => row.run.training_run_id);
    assert.deepEqual((await selected()).sort(), [...ids].sort());
    await look(anchor - 3);
    assert.equal(await rowAt(anchor - 1).getAttribute("aria-selected"), "true", "what was not read then is shown as selected");

    // In the order of their last activity the runs stand by their numbers, which are in their names.
    const { name, run } = around[68];
    const place = Number(name.match(/\d+$/)[0]);
    await byTestId(page, "runs-sort").selectOption("activity");
    await page.waitForURL(/sort=activity/);
    await look(place + 60);
    const range = await idsBetween(retinker, "sort=activity", place, place + 65);
    assert.equal(range[0], run.training_run_id, "the same run, elsewhere");
    const both = new Set([...ids, ...range]);
    await selectTo(place + 65, both.size);
    assert.deepEqual((await selected()).sort(), [...both].sort());

    // Where the filter leaves the first run out, the other is all of the range.
    const others = ["sft-code", "dpo-tone"].find((task) => !name.startsWith(task));
    await byTestId(page, "runs-search").fill(`name:${others} rank>=64`);
    await page.waitForURL(/q=name/);
    await rowAt(0).locator(".run-name").getByText(others).waitFor();
    const [alone] = await idsBetween(retinker, `sort=activity&q=${encodeURIComponent(`name:${others} rank>=64`)}`, 2, 2);
    assert.ok(!both.has(alone));
    await selectTo(2, both.size + 1);
    assert.equal((await selected()).at(-1), alone);
  });

  await t.test("of a range to the last run as many are taken as can be, and that is said", async () => {
    await go("/?sort=name");
    const at = 50_003;
    await look(at - 3);
    await rowAt(at).locator(".c-model").click();
    await grid.focus();
    await page.keyboard.press("Space");
    await page.keyboard.press("Control+Shift+End");
    await told(page, "selected-count", `The first 10,000 of ${commas(RUNS - at)} matching runs selected`);
    await rowAt(RUNS - 1).waitFor();
    await picture(page, "many-most");
    assert.deepEqual(await selected(), await idsBetween(retinker, "sort=name", at, at + MOST - 1), "those nearest to where it began");
    await look(at);
    await box(at + 1).uncheck();
    await told(page, "selected-count", `9,999 runs selected; of ${commas(RUNS - at)} matching the first 10,000 were taken`);
    await grid.focus();
    await page.keyboard.press("Escape");
    await byTestId(page, "selected").waitFor({ state: "detached" });
  });

  await t.test("a range without a beginning is none, and one that the host does not tell has its end", async () => {
    await go("/?sort=name");
    await rowAt(0).waitFor();
    await grid.focus();
    // The row that the keyboard is on is not held any more.
    await look(50_000);
    await page.keyboard.press("Shift+ArrowDown");
    await rowAt(1).waitFor();
    await page.keyboard.press("Shift+ArrowDown");
    await told(page, "selected-count", "2 runs selected");
    await look(50_000);
    await page.route("**/run-ids?*", (route) => route.abort(), { times: 1 });
    await box(50_003).click({ modifiers: ["Shift"] });
    const banner = page.locator('[data-testid="banner-problem"]');
    await banner.waitFor();
    await told(page, "selected-count", "3 runs selected");
    assert.equal(await rowAt(50_003).getAttribute("aria-selected"), "true", "as its box says");
    // The list is read meanwhile, and well.
    await look(60_000);
    await banner.getByRole("button", { name: "Close" }).click();
    await banner.waitFor({ state: "detached" });
  });

  await t.test("a run is gone to by a part of its name", async () => {
    const [{ name, run }] = await runsBetween(retinker, "sort=activity", 73_429, 73_429);
    assert.match(name, /-73429$/);
    await page.keyboard.press("Control+k");
    const option = byTestId(page, "palette-option");
    await byTestId(page, "palette-text").pressSequentially("7342", { delay: 30 });
    await option.nth(5).waitFor();
    assert.equal(await option.count(), 6, "of those that fit a few are offered");
    assert.ok(!(await option.allInnerTexts()).some((text) => text.includes(name)));
    // Before the answer is there, Enter goes to none of those that what was written before had found.
    const { href } = new URL(page.url());
    const answer = await holdBack(page, "**/retinker/v1/runs?q=73429&*");
    await page.keyboard.press("9");
    await page.keyboard.press("Enter");
    answer();
    await option.filter({ hasText: name }).waitFor();
    assert.equal(page.url(), href);
    await page.waitForFunction(() => document.querySelectorAll('[data-testid="palette-option"]').length === 1);
    await page.unroute("**/retinker/v1/runs?q=73429&*");
    await picture(page, "many-palette");
    await page.keyboard.press("Enter");
    await page.waitForURL((url) => decodeURIComponent(url.pathname) === `/runs/${run.training_run_id}`);
    await page.getByRole("heading", { name }).waitFor();
    await byTestId(page, "verdict").waitFor();
  });

  await t.test("150,000 checkpoints are counted, found, and looked through to the last page", async () => {
    const total = byTestId(page, "checkpoints-total");
    const items = byTestId(page, "checkpoint-item");
    const shows = (count) =>
      page.waitForFunction((n) => document.querySelectorAll('[data-testid="checkpoint-item"]').length === n, count);
    await go("/checkpoints");
    await total.getByText(/^1–100 of 150,000 checkpoints, /).waitFor({ timeout: 120_000 });
    await shows(100);
    const count = (kind) => byTestId(page, `type-filter-${kind}`).locator(".filter-count").innerText();
    assert.deepEqual(await Promise.all(["all", "training", "sampler"].map(count)), ["150,000", "100,000", "50,000"]);
    await picture(page, "many-checkpoints");
    const search = byTestId(page, "checkpoints-search");
    await search.fill("type:sampler");
    await total.getByText(/^1–100 of 50,000 matching, .*; 150,000 checkpoints in all, /).waitFor();
    assert.ok((await items.evaluateAll((rows) => rows.every((row) => row.dataset.path.includes("/sampler_weights/")))));
    // Of eight runs one has saved three times.
    await search.fill("name:000300");
    await total.getByText(/^1–100 of 12,500 matching, /).waitFor();
    const [{ name, run }] = await runsBetween(retinker, "sort=activity", 73_418, 73_418);
    await search.fill(`run:${name}`);
    await total.getByText(/^3 matching, /).waitFor();
    await shows(3);
    assert.ok((await items.evaluateAll((rows, id) => rows.every((row) => row.dataset.path.includes(id)), run.training_run_id)));

    await go("/checkpoints?sort=name&page=1500");
    await total.getByText(/^149,901–150,000 of 150,000 checkpoints, /).waitFor();
    await shows(100);
    const last = await windows(retinker, "checkpoints?sort=name", 149_900, 149_999);
    const paths = last.map((row) => row.checkpoint.tinker_path);
    assert.deepEqual(await items.evaluateAll((rows) => rows.map((row) => row.dataset.path)), paths);
    const pager = page.getByRole("navigation", { name: "Pages", exact: true });
    await pager.getByText("Page 1,500 of 1,500").waitFor();
    assert.equal(await page.getByRole("link", { name: "Next" }).count(), 0);
    await page.getByRole("link", { name: "Previous" }).click();
    await total.getByText(/^149,801–149,900 of 150,000 checkpoints, /).waitFor();
    await go("/checkpoints?sort=name&page=1501");
    await pager.getByText("Beyond the last of 1,500 pages").waitFor();
  });

  /** The runs of which the host says that they can be restored. */
  const poisoned = () => idsBetween(retinker, "health=poisoned", 0, 999);

  await t.test("five hundred runs that lost their state are one banner, and all of them are planned for at once", async () => {
    const incident = async (count) => {
      const { body } = await retinker.host("activity?whole=true");
      return body.incidents.length === 1 && body.incidents[0].run_ids.length === count;
    };
    await until("the runs that were lost from the start", () => incident(LOST));
    await go("/");
    const banner = byTestId(page, "incident-banner");
    const before = (await poisoned()).length;
    await banner.getByText(`${before} runs that lost their state together wait to be restored`).waitFor();
    // One more of those whose sessions last, while somebody looks.
    const healthy = (await runsBetween(retinker, "sort=activity", 0, FIRST_LOST - 1)).filter((row) => row.verdict.health === "healthy");
    const more = healthy.find((row) => row.run.last_checkpoint && !row.run.last_checkpoint.expires_at).run.training_run_id;
    await service.poison(parseInt(more, 16));
    await banner.getByText(`${before + 1} runs that lost their state together wait to be restored`).waitFor();
    const lost = await poisoned();
    assert.equal(lost.length, before + 1);
    assert.ok(lost.includes(more));
    const [unrecoverable, counts] = [await idsBetween(retinker, "health=unrecoverable", 0, 999), (await retinker.host("runs?limit=1")).body.counts];
    assert.equal(lost.length + unrecoverable.length, LOST + 1);
    assert.deepEqual([counts.poisoned, counts.unrecoverable], [lost.length, unrecoverable.length]);
    await picture(page, "many-banner");

    // What was planned, by the answers; the third question for plans gets none.
    let [asked, planned] = [0, []];
    await page.route("**/retinker/v1/plan-batches", async (route) => {
      asked += 1;
      if (asked === 3) return route.abort();
      const response = await route.fetch();
      planned.push(...(await response.json()).runs);
      await route.fulfill({ response });
    });
    const all = byTestId(page, "plan-all");
    assert.equal(await all.innerText(), `Plan all ${lost.length}\u2026`);
    await all.click();
    const dialog = byTestId(page, "bulk-dialog");
    await dialog.locator('[data-testid="banner-problem"]').waitFor();
    await told(page, "bulk-outlook", `16 of ${lost.length} runs were looked at.`);
    assert.ok(await byTestId(page, "confirm-bulk").isDisabled(), "nothing begins before all is known");
    planned = [];
    await dialog.getByRole("button", { name: "Try again" }).click();
    await told(page, "bulk-outlook", `All ${lost.length} can be restored.`);
    assert.deepEqual(planned.filter((run) => run.plan).map((run) => run.run_id).sort(), [...lost].sort());
    assert.equal(await byTestId(page, "confirm-bulk").innerText(), `Restore ${lost.length} runs`);
    const lines = byTestId(page, "bulk-plans").locator("li[data-run-id]");
    const further = dialog.locator('[data-testid="more-lines"]');
    assert.equal(await lines.count(), 200);
    await picture(page, "many-plans");
    for (let shown = 200; shown < lost.length; shown += 200) {
      const left = lost.length - shown;
      await further.getByText(`Show ${Math.min(200, left)} of ${left} more`).click();
      await until("more of them", async () => (await lines.count()) === Math.min(shown + 200, lost.length));
    }
    await further.waitFor({ state: "detached" });
    assert.deepEqual((await lines.evaluateAll((all) => all.map((one) => one.dataset.runId))).sort(), [...lost].sort());
    await page.keyboard.press("Escape");
    await page.unroute("**/retinker/v1/plan-batches");

    // Who closes it wants no more of them.
    const batches = [];
    await page.route("**/retinker/v1/plan-batches", async (route) => {
      batches.push(route.request().postDataJSON().run_ids);
      await page.keyboard.press("Escape");
      await dialog.waitFor({ state: "hidden" });
      await route.continue();
    });
    for (const _ of [1, 2]) await Promise.all([page.waitForResponse("**/retinker/v1/plan-batches"), all.click()]);
    assert.equal(batches.length, 2);
    assert.deepEqual(batches[1], batches[0], "from the beginning, and nothing in between");
    await page.unroute("**/retinker/v1/plan-batches");
  });

  await t.test("of an incident of 500 runs and of 2,000 restores the first are told, and all of them saved", async () => {
    await go("/activity");
    const incident = byTestId(page, "incident").filter({ hasText: "lost their state together" });
    await incident.getByText("500 runs lost their state together").waitFor();
    await incident.getByText("Which 500 runs").click();
    const named = incident.locator(".run-ids li");
    assert.equal(await named.count(), 101);
    assert.equal(await named.last().innerText(), "and 400 more");

    const rows = byTestId(page, "restore-row");
    const ids = () => rows.evaluateAll((rows) => rows.map((row) => row.dataset.restoreId));
    const newest = (count) => Array.from({ length: count }, (_, n) => `restore-${(RESTORES - 1 - n).toString(16).padStart(16, "0")}`);
    await page.getByText("The newest 100 of 2,000.").waitFor();
    assert.deepEqual(await ids(), newest(100));
    await picture(page, "many-restores");
    await byTestId(page, "older").click();
    await page.getByText("The newest 500 of 2,000.").waitFor();
    assert.deepEqual(await ids(), newest(500));
    assert.match(await rows.nth(0).innerText(), /The service refused the checkpoint\./);
    const [download] = await Promise.all([page.waitForEvent("download"), byTestId(page, "activity-export").click()]);
    const all = JSON.parse(await readFile(await download.path(), "utf8"));
    assert.deepEqual(all.restores.map((restore) => restore.id), newest(RESTORES));
    assert.equal(all.incidents[0].run_ids.length, 500);
  });

  await t.test("while the service is away the list is as it was, and can be looked through", async () => {
    await go("/?sort=name");
    await rowAt(0).waitFor();
    service.child.kill("SIGKILL");
    const banner = page.locator('[data-testid="banner-problem"]');
    await banner.first().waitFor();
    await told(page, "runs-total", "100,000 runs");
    await look(90_000);
    await byTestId(page, "runs-search").fill("health:poisoned");
    const { length } = await poisoned();
    await told(page, "runs-total", `${length} of 100,000 runs`);
    await rowAt(5).getByText("Poisoned").waitFor();
    await picture(page, "many-away");
    const port = new URL(service.url).port;
    await Simulated.start(t, ["--runs", RUNS, "--every", "0", "--port", port]);
    await banner.first().waitFor({ state: "detached" });
    // What it has forgotten is poisoned no more.
    await told(page, "runs-total", "0 of 100,000 runs");
  });
  assert.deepEqual(unexpected(page.problems), []);
});
