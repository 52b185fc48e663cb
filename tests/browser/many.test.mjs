// Checkpoints by the hundred: page by page, and what is done with many of them at once and stopped midway.
import assert from "node:assert/strict";
import { test } from "node:test";

import { row } from "./support/acting.mjs";
import { byTestId, holdBack, openBrowser, openPage, picture } from "./support/browser.mjs";
import { assertSomewhere } from "./support/keyboard.mjs";
import { Retinker, until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

/** As many as are on one page, and some more. */
const COUNT = 104;
/** As many as are changed by one request. */
const BATCH = 20;
const DAY = 86_400;

const rows = (page) => byTestId(page, "checkpoint-item");
const paths = (page) => rows(page).evaluateAll((rows) => rows.map((row) => row.dataset.path));
const shows = (page, count) =>
  page.waitForFunction((n) => document.querySelectorAll('[data-testid="checkpoint-item"]').length === n, count);
const job = (page, running) => page.locator(`[data-testid="job"][data-running="${running}"]`);
const told = (page, text) => job(page, false).getByText(text, { exact: true }).waitFor();
const pager = (page, text) => page.getByRole("navigation", { name: "Pages", exact: true }).getByText(text).waitFor();

/** A service with a run of so many checkpoints, and the list of them. */
async function made(t) {
  const retinker = await Retinker.up(t);
  const service = new Service(retinker.serviceUrl);
  const run = await service.run(await service.session(), 0, "of many");
  const save = (n) =>
    service.call("save_weights", { model_id: run, seq_id: n, path: String(n).padStart(4, "0") });
  await Promise.all(Array.from({ length: COUNT }, (_, n) => save(n + 1)));

  /** What the service says of each, by path and in the order of the paths. */
  const listed = async () => {
    const ask = (from) => retinker.service(`checkpoints?limit=100&offset=${from}`);
    const pages = await Promise.all([0, 100, 200].map(ask));
    const all = pages.flatMap(({ checkpoints }) => checkpoints).map((one) => [one.tinker_path, one]);
    return new Map(all.sort(([a], [b]) => (a < b ? -1 : 1)));
  };
  /** The paths of those that anybody may read. */
  const open = async () => [...(await listed()).values()].filter((one) => one.public).map((one) => one.tinker_path);
  /** Does this with one checkpoint by the service's own API, beside the console. */
  const beside = async (path, what, method, body) => {
    const [id, rest] = path.replace("tinker://", "").split(/\/(.*)/);
    const response = await fetch(`${retinker.serviceUrl}/api/v1/training_runs/${id}/checkpoints/${rest}/${what}`, {
      method,
      headers: { "x-api-key": "tml-test", "content-type": "application/json" },
      body: body && JSON.stringify(body),
    });
    assert.ok(response.ok, `${method} ${what}: ${response.status} ${await response.text()}`);
  };
  return { retinker, service, listed, open, beside };
}

const pick = async (page, chosen) => {
  for (const path of chosen) await row(page, path).getByRole("checkbox").check();
};

test("many checkpoints are looked through, changed at once, and stopped midway", async (t) => {
  const { retinker, service, listed, open, beside } = await made(t);
  const all = [...(await listed()).keys()];
  assert.equal(all.length, COUNT);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  /** The list anew: nothing selected, nothing held back, and no job told. */
  const fresh = async (address = "/checkpoints?sort=name") => {
    await page.unrouteAll();
    await page.goto(new URL(address, page.url()).href);
    await rows(page).first().waitFor();
  };

  await t.test("a list longer than a page has two, and the address and the way back hold which", async () => {
    await fresh();
    await shows(page, 100);
    await pager(page, "Page 1 of 2");
    assert.match(await byTestId(page, "checkpoints-total").innerText(), /^1–100 of 104 checkpoints, /);
    const first = await paths(page);
    await page.getByRole("link", { name: "Next" }).click();
    await page.waitForURL(/\/checkpoints\?sort=name&page=2$/);
    await shows(page, 4);
    await pager(page, "Page 2 of 2");
    assert.match(await byTestId(page, "checkpoints-total").innerText(), /^101–104 of 104 checkpoints, /);
    assert.deepEqual([...first, ...(await paths(page))], all, "each of the service's is on one of them, in its order");
    assert.equal(await page.getByRole("link", { name: "Next" }).count(), 0);
    await picture(page, "checkpoints-last-page");
    await page.goBack();
    await pager(page, "Page 1 of 2");
    await shows(page, 100);
    assert.deepEqual(await paths(page), first);
    await page.goForward();
    await shows(page, 4);
    await page.reload();
    await shows(page, 4);
    await page.getByRole("link", { name: "Previous" }).click();
    await page.waitForURL(/\/checkpoints\?sort=name$/);
    await shows(page, 100);
  });

  await t.test("what is selected stays selected on another page, and another filter begins with the first", async () => {
    await fresh("/checkpoints?sort=name&page=2");
    await byTestId(page, "select-page").check();
    await page.getByRole("link", { name: "Previous" }).click();
    await shows(page, 100);
    await byTestId(page, "selection").getByText("4 checkpoints selected, 4 not on this page").waitFor();
    await page.getByRole("link", { name: "Next" }).click();
    await shows(page, 4);
    await byTestId(page, "checkpoints-search").fill("name:000");
    await shows(page, 9);
    assert.equal(new URL(page.url()).searchParams.get("page"), null);
  });

  await t.test("the keyboard is on something when the last page is shown", async () => {
    await fresh();
    await page.getByRole("link", { name: "Next" }).focus();
    await page.keyboard.press("Enter");
    await shows(page, 4);
    await assertSomewhere(page);
  });

  await t.test("another page begins at its top, and another order leaves one where one is", async () => {
    await fresh();
    await page.getByRole("link", { name: "Next" }).scrollIntoViewIfNeeded();
    const down = () => page.evaluate(() => Math.round(scrollY));
    assert.ok((await down()) > 1000);
    await page.getByRole("link", { name: "Next" }).click();
    await shows(page, 4);
    assert.equal(await down(), 0);
    await fresh();
    await page.evaluate(() => scrollTo(0, 60));
    await byTestId(page, "sort-size").click();
    await page.waitForURL(/sort=size/);
    await page.locator('th[aria-sort="descending"]').waitFor();
    assert.equal(await down(), 60);
  });

  await t.test("what would expire is kept for ever, and given its former life back", async () => {
    const [first, second, third] = all;
    await beside(first, "ttl", "PUT", { ttl_seconds: 30 * DAY });
    await beside(second, "ttl", "PUT", { ttl_seconds: 90 * DAY });
    const before = await listed();
    await until("the host to know", async () => {
      const { body } = await retinker.host("checkpoints?q=expires%3C100d");
      return body.matching === 2;
    });
    await fresh();
    await row(page, first).getByText(/in (29|30) d/).waitFor();
    await pick(page, [first, second, third]);
    await byTestId(page, "bulk-life").click();
    await byTestId(page, "life-keep").check();
    assert.equal(await byTestId(page, "life-days").count(), 0, "for ever takes no number of days");
    await byTestId(page, "confirm-life").click();
    await told(page, "2 of 3 checkpoints kept for ever, 1 needed no change.");
    const kept = await listed();
    for (const path of [first, second, third]) assert.equal(kept.get(path).expires_at ?? null, null, path);
    for (const path of [first, second]) await row(page, path).locator(".c-expires").getByText("never").waitFor();
    await byTestId(page, "undo").click();
    await told(page, "2 checkpoints given their former life.");
    const after = await listed();
    for (const path of [first, second]) {
      const apart = Date.parse(after.get(path).expires_at) - Date.parse(before.get(path).expires_at);
      assert.ok(Math.abs(apart) < 60_000, `${path} expires ${apart} ms later than before`);
    }
    assert.equal(after.get(third).expires_at ?? null, null, "what was not changed is not changed back");
    for (const path of [first, second]) await beside(path, "ttl", "PUT", { ttl_seconds: null });
  });

  await t.test("several are made private at once, and those that were are left out of the way back", async () => {
    const some = all.slice(0, 3);
    for (const path of some.slice(0, 2)) await beside(path, "publish", "POST");
    await until("the host to know", async () => (await retinker.host("checkpoints?q=public%3Ayes")).body.matching === 2);
    await fresh();
    await row(page, some[0]).locator('[data-testid="public"]').waitFor();
    await pick(page, some);
    await byTestId(page, "bulk-unpublish").click();
    await told(page, "2 of 3 checkpoints made private, 1 needed no change.");
    assert.deepEqual(await open(), []);
    await byTestId(page, "public").first().waitFor({ state: "detached" });
    await byTestId(page, "undo").click();
    await told(page, "2 checkpoints published.");
    assert.deepEqual(await open(), some.slice(0, 2), "and nothing that was private before");
    await byTestId(page, "undo").click();
    await told(page, "2 checkpoints made private.");
  });

  await t.test("what somebody else has published since the list was read is made private all the same", async () => {
    const [path] = all;
    await fresh();
    await pick(page, [path]);
    // Just read, so that the host goes by what it read.
    const asOf = async () => (await retinker.host("checkpoints?limit=1")).body.as_of;
    const before = await asOf();
    await until("another reading", async () => (await asOf()) !== before);
    await beside(path, "publish", "POST");
    await byTestId(page, "bulk-unpublish").click();
    await job(page, false).waitFor();
    const left = await open();
    for (const one of left) await beside(one, "publish", "DELETE");
    assert.deepEqual(left, [], `it is public, and the page says: ${await byTestId(page, "job").innerText()}`);
  });

  await t.test("several are copied at once, each as it is", async () => {
    const some = all.slice(0, 3);
    const before = await listed();
    await fresh();
    await pick(page, some);
    await byTestId(page, "bulk-copy").click();
    await told(page, "3 checkpoints copied.");
    assert.equal(await byTestId(page, "undo").count(), 0, "there is no way back to offer");
    const after = await listed();
    const copies = [...after.keys()].filter((path) => !before.has(path));
    const about = (path) => [path.split("/").at(-1), after.get(path).size_bytes];
    assert.deepEqual(copies.map(about).sort(), some.map(about).sort());
    assert.equal(new Set(copies.map((path) => path.split("/")[2])).size, 3, "a run for each");
    for (const path of some) assert.deepEqual(after.get(path), before.get(path), "what was copied is as it was");
    const [session] = await service.search({ display_name: "copies of 3 checkpoints" });
    assert.equal(session.status.type, "client_finished", "their session holds nothing open");
    await byTestId(page, "checkpoints-total").getByText("1–100 of 107 checkpoints").waitFor();
  });

  /** Selects 50 and publishes them; the second of the requests is held on its way. */
  const many = all.slice(0, 50);
  const publishMany = async () => {
    // Of the one run: the copies stand between its own.
    await fresh(`/checkpoints?q=${encodeURIComponent(`run:${many[0].split("/")[2]}`)}&sort=name`);
    await shows(page, 100);
    await row(page, many[0]).getByRole("checkbox").check();
    await row(page, many.at(-1)).getByRole("checkbox").click({ modifiers: ["Shift"] });
    await byTestId(page, "selection").getByText("50 checkpoints selected").waitFor();
    const go = await holdBack(page, "**/retinker/v1/checkpoints/actions", 1);
    await byTestId(page, "bulk-publish").click();
    await job(page, true).getByText("20 of 50 checkpoints published…").waitFor();
    assert.deepEqual(await job(page, true).locator("progress").evaluate((bar) => [bar.value, bar.max]), [BATCH, 50]);
    return go;
  };
  const closed = async () => {
    for (const path of await open()) await beside(path, "publish", "DELETE");
  };

  await t.test("what is stopped midway has done what it had begun, and nothing after that", async () => {
    const go = await publishMany();
    await picture(page, "checkpoints-job");
    await byTestId(page, "job-stop").click();
    go();
    await told(page, "40 of 50 checkpoints published.");
    assert.deepEqual(await open(), many.slice(0, 2 * BATCH), "in the order of their paths");
    await byTestId(page, "undo").click();
    await told(page, "40 checkpoints made private.");
    assert.deepEqual(await open(), [], "the way back is of all that was done");
  });

  await t.test("what is still being done when it is stopped is not told as ended", async () => {
    const go = await publishMany();
    await byTestId(page, "job-stop").click();
    const said = await byTestId(page, "job").innerText();
    go();
    await until("what was on its way", async () => (await open()).length === 2 * BATCH);
    await closed();
    assert.doesNotMatch(said, /published\./, "twenty are told, and twenty more become public after that");
  });

  await t.test("what is stopped and taken back at once is taken back, and does not go on", async () => {
    const waiting = new Set();
    page.on("request", (request) => request.url().endsWith("/actions") && waiting.add(request));
    page.on("requestfinished", (request) => waiting.delete(request));
    const go = await publishMany();
    await byTestId(page, "job-stop").click();
    // As soon as the way back is offered: now, or when what was on its way has been answered.
    const isOffered = await byTestId(page, "undo").isVisible();
    if (isOffered) await byTestId(page, "undo").click();
    go();
    if (!isOffered) await byTestId(page, "undo").click();
    await job(page, false).getByText("made private").waitFor();
    await until("all that was asked for", () => waiting.size === 0);
    const left = await open();
    const said = await byTestId(page, "job").innerText();
    await closed();
    assert.deepEqual(left, [], `nothing is left published, and the page says: ${said}`);
  });

  await t.test("why it broke off is told to whoever comes back", async () => {
    const go = await publishMany();
    await page.getByRole("link", { name: "Activity" }).click();
    await page.waitForURL(/activity/);
    const broken = page.waitForEvent("requestfailed");
    go("break off");
    await broken;
    await page.getByRole("link", { name: "Checkpoints" }).click();
    await told(page, "20 of 50 checkpoints published.");
    await closed();
    await page.locator('[data-testid="banner-problem"]').waitFor({ timeout: 10_000 });
  });
  // What was made to break off is reported by the browser.
  assert.deepEqual(page.problems.filter((problem) => !problem.includes("ERR_FAILED")), []);
});
