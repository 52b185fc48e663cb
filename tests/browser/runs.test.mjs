// The list of runs, over a service of 100,000: one screenful on the page, and all of it within reach.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, holdBack, openBrowser, openPage, picture } from "./support/browser.mjs";
import { until } from "./support/retinker.mjs";
import { Simulated, consoleOn } from "./support/simulated.mjs";

const RUNS = 100_000;

/** The list on a service of so many runs. */
async function list(t, runs = RUNS, options = {}, args = []) {
  const service = await Simulated.start(t, ["--runs", runs, ...args]);
  const retinker = await consoleOn(t, service.url, runs);
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl, options);
  await byTestId(page, "run-row").first().waitFor();
  return { service, retinker, browser, page };
}

const rows = (page) => byTestId(page, "run-row");
const total = (page) => byTestId(page, "runs-total").textContent();
const told = (page, wanted) =>
  page.waitForFunction((text) => document.querySelector('[data-testid="runs-total"]').textContent === text, wanted);
/** The row at this place, once it is there. */
const rowAt = (page, at) => page.locator(`[data-testid="run-row"][aria-rowindex="${at + 2}"]`);
/** The place of the cell that the keyboard is on; it must be on the page. */
const active = (page) =>
  page.evaluate(() => {
    const cell = document.getElementById(document.getElementById("runs-grid").getAttribute("aria-activedescendant"));
    return cell && [Number(cell.closest("[role=row]").getAttribute("aria-rowindex")) - 2, Number(cell.getAttribute("aria-colindex")) - 1];
  });

test("a hundred thousand runs are a screenful on the page, and the keyboard reaches the last", async (t) => {
  const { page } = await list(t);
  assert.equal(await total(page), "100,000 runs");
  const grid = byTestId(page, "runs-scroller");
  assert.equal(await grid.getAttribute("aria-rowcount"), "100001");
  const few = async () => {
    const [shown, elements] = await page.evaluate(() => [
      document.querySelectorAll('[data-testid="run-row"]').length,
      document.querySelectorAll("*").length,
    ]);
    assert.ok(shown < 60 && elements < 1500, `${shown} rows, ${elements} elements`);
  };
  await few();
  await grid.focus();
  await page.keyboard.press("Control+End");
  await rowAt(page, RUNS - 1).waitFor();
  assert.deepEqual(await active(page), [RUNS - 1, 8]);
  await few();
  await picture(page, "runs-end");
  await page.keyboard.press("PageUp");
  const [row] = await active(page);
  assert.ok(row < RUNS - 2 && row > RUNS - 40, `a page up is row ${row}`);
  await page.keyboard.press("Control+Home");
  await rowAt(page, 0).waitFor();
  for (const key of ["ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight", "End", "Home", "ArrowRight"]) await page.keyboard.press(key);
  assert.deepEqual(await active(page), [1, 1]);
  const id = await rowAt(page, 1).getAttribute("data-run-id");
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => decodeURIComponent(url.pathname) === `/runs/${id}`);

  // The way back leads to where one was.
  await page.goBack();
  await rowAt(page, 0).waitFor();
  await grid.evaluate((frame) => frame.scrollTo(0, 54 * 50_000));
  await rowAt(page, 50_001).waitFor();
  await rowAt(page, 50_003).locator("a.run-name").click();
  await page.waitForURL(/\/runs\//);
  await page.goBack();
  await rowAt(page, 50_003).waitFor();
  assert.deepEqual(page.problems, []);
});

test("the order, the columns and their widths are in the address", async (t) => {
  const { page, browser, retinker } = await list(t, 3_000);
  await byTestId(page, "sort-name").click();
  await page.waitForURL(/sort=name/);
  const head = page.locator('[role="columnheader"]', { has: byTestId(page, "sort-name") });
  assert.equal(await head.getAttribute("aria-sort"), "ascending");
  const names = () => rows(page).locator(".run-name").allTextContents();
  await until("names in order", async () => {
    const shown = await names();
    return shown.length > 5 && shown.every((name, at) => at === 0 || shown[at - 1] <= name);
  });
  await byTestId(page, "sort-name").click();
  await page.waitForURL(/reverse=true/);
  assert.equal(await head.getAttribute("aria-sort"), "descending");
  await until("names the other way round", async () => {
    const shown = await names();
    return shown.length > 5 && shown.every((name, at) => at === 0 || shown[at - 1] >= name);
  });
  await page.goBack();
  await page.waitForURL((url) => !url.search.includes("reverse"));

  await byTestId(page, "columns-menu").click();
  await byTestId(page, "column-rank").uncheck();
  await byTestId(page, "column-labels").check();
  await page.getByRole("button", { name: "Make Base model wider" }).click();
  await page.waitForURL(/columns=.*labels/);
  await picture(page, "runs-columns");
  await page.keyboard.press("Escape");
  const heads = page.locator('[role="columnheader"]');
  assert.deepEqual(await heads.allTextContents(), [
    "Selected", "Health", "Run", "Base model", "Last activity", "Last checkpoint", "Expires", "Lineage", "Labels",
  ]);
  const width = (name) => heads.filter({ hasText: name }).evaluate((head) => head.getBoundingClientRect().width);
  assert.equal(await width("Base model"), 196);
  const edge = await byTestId(page, "edge-model").boundingBox();
  await page.mouse.move(edge.x + 4, edge.y + 8);
  await page.mouse.down();
  await page.mouse.move(edge.x + 64, edge.y + 8, { steps: 4 });
  await page.mouse.up();
  await page.waitForURL(/model~25\d/);
  const shared = page.url();

  // Another column, or another width, is no other list: one stays where one is.
  const grid = byTestId(page, "runs-scroller");
  await grid.evaluate((frame) => frame.scrollTo(0, 25_000));
  const [first] = await until("rows of there", async () => {
    // The place first: names that are read before it may be those of the place before.
    const isThere = (await rows(page).first().getAttribute("aria-rowindex")) > 300;
    const shown = await names();
    return isThere && shown.length > 5 && shown;
  });
  await byTestId(page, "columns-menu").click();
  await byTestId(page, "column-rank").check();
  await page.waitForURL(/columns=.*rank/);
  await byTestId(page, "column-rank").uncheck();
  await page.waitForURL((url) => !/rank/.test(url.search));
  await page.keyboard.press("Escape");
  assert.equal(await grid.evaluate((frame) => frame.scrollTop), 25_000);
  assert.ok((await names()).includes(first));

  // Whoever gets the address sees the same; whoever chose the columns sees them wherever the address names none.
  const other = await openPage(browser, retinker.consoleUrl);
  await other.goto(shared);
  await rows(other).first().waitFor();
  assert.deepEqual(await other.locator('[role="columnheader"]').allTextContents(), await heads.allTextContents());
  await page.goto(new URL("/", shared).href);
  await rows(page).first().waitFor();
  assert.ok((await heads.allTextContents()).includes("Labels"));
  await byTestId(page, "columns-menu").click();
  await page.getByRole("button", { name: "Usual columns" }).click();
  await page.waitForFunction(() => !document.querySelector('[role="columnheader"].c-labels'));
  assert.deepEqual(page.problems, []);
});

test("runs are selected one by one, in ranges and all that match, and stay selected", async (t) => {
  const { page, retinker } = await list(t);
  const count = byTestId(page, "selected-count");
  await rowAt(page, 1).locator("input").check();
  await rowAt(page, 5).locator("input").click({ modifiers: ["Shift"] });
  assert.equal(await count.textContent(), "5 runs selected");
  assert.equal(await rowAt(page, 3).getAttribute("aria-selected"), "true");
  // The end of a range that was selected already stays so, in its box as well.
  await rowAt(page, 1).locator("input").click({ modifiers: ["Shift"] });
  assert.equal(await count.textContent(), "5 runs selected");
  assert.deepEqual(
    [await rowAt(page, 1).getAttribute("aria-selected"), await rowAt(page, 1).locator("input").isChecked()],
    ["true", true],
  );
  await rowAt(page, 3).locator("input").uncheck();
  assert.equal(await count.textContent(), "4 runs selected");

  // A range whose rows were never read is told by the host.
  const grid = byTestId(page, "runs-scroller");
  await grid.evaluate((frame) => frame.scrollTo(0, 54 * 1_000));
  await rowAt(page, 1_002).locator("input").click({ modifiers: ["Shift"] });
  await page.waitForFunction(() => document.querySelector('[data-testid="selected-count"]').textContent === "1,002 runs selected");

  // More than can be taken at once is told, before and after.
  assert.equal(await byTestId(page, "select-all").innerText(), "Select the first 10,000 of 100,000 matching");
  const go = await holdBack(page, "**/run-ids?*");
  const answered = page.waitForResponse("**/run-ids?*");
  await byTestId(page, "select-all").click();
  await byTestId(page, "select-none").click();
  go();
  await answered;
  await page.waitForTimeout(300);
  assert.equal(await byTestId(page, "selected").count(), 0, "what comes late is not wanted any more");
  await page.unroute("**/run-ids?*");
  await rowAt(page, 1_002).locator("input").check();
  await byTestId(page, "select-all").click();
  await page.waitForFunction(() => document.querySelector('[data-testid="selected-count"]').textContent === "The first 10,000 of 100,000 matching runs selected");
  await byTestId(page, "select-none").click();
  await byTestId(page, "selected").waitFor({ state: "detached" });

  await byTestId(page, "runs-search").fill("health:poisoned");
  const { body } = await retinker.host("runs?health=poisoned&limit=1");
  await told(page, `${body.matching} of 100,000 runs`);
  await grid.focus();
  await page.keyboard.press("Control+a");
  await page.waitForFunction((n) => document.querySelector('[data-testid="selected-count"]')?.textContent === `${n} runs selected`, body.matching);
  await page.keyboard.press("Escape");
  await byTestId(page, "selected").waitFor({ state: "detached" });
  await page.keyboard.press("Space");
  await page.keyboard.press("Shift+ArrowDown");
  await page.keyboard.press("Shift+ArrowDown");
  assert.equal(await count.textContent(), "3 runs selected");
  const ids = await Promise.all([0, 1, 2].map((at) => rowAt(page, at).getAttribute("data-run-id")));
  await rowAt(page, 1).locator("a.run-name").click();
  await page.waitForURL(/\/runs\//);
  await page.goBack();
  await told(page, `${body.matching} of 100,000 runs`);
  assert.equal(await count.textContent(), "3 runs selected", "and when one looks at a run, and comes back");
  await byTestId(page, "runs-search").fill("");
  await told(page, "100,000 runs");
  assert.equal(await count.textContent(), "3 runs selected", "what is selected stays when the filter changes");
  await picture(page, "runs-selected");
  assert.deepEqual(
    new URL(await byTestId(page, "compare-selected").getAttribute("href"), page.url()).searchParams.getAll("run"),
    ids,
  );
  // Where as many others are selected as match, these can be selected too, and take none of the others away.
  await byTestId(page, "select-none").click();
  await rowAt(page, 0).locator("input").check();
  const other = (await retinker.host("runs?health=healthy&limit=1")).body.rows[0].run.training_run_id;
  assert.notEqual(await rowAt(page, 0).getAttribute("data-run-id"), other);
  await byTestId(page, "runs-search").fill(other);
  await told(page, "1 of 100,000 runs");
  await byTestId(page, "select-all").getByText("Select all 1 matching").click();
  await page.waitForFunction(() => document.querySelector('[data-testid="selected-count"]').textContent === "2 runs selected");
  await byTestId(page, "select-all").waitFor({ state: "detached" });
  assert.equal(await rowAt(page, 0).getAttribute("aria-selected"), "true");
  assert.deepEqual(page.problems, []);
});

test("each count is a filter, of what the text lets through", async (t) => {
  const { page, retinker } = await list(t, 3_000);
  await byTestId(page, "runs-search").fill("qwen");
  const { body: all } = await retinker.host("runs?q=qwen&limit=1");
  await told(page, `${all.matching.toLocaleString("en")} of 3,000 runs`);
  /** Until the page says so, of what goes on meanwhile. */
  const says = (health) =>
    until(`the runs that are ${health}`, async () => {
      const { body } = await retinker.host(`runs?q=qwen&limit=1&health=${health}`);
      const count = body.matching.toLocaleString("en");
      const filter = await byTestId(page, `health-filter-${health}`).locator(".filter-count").innerText();
      return filter === count && (await total(page)) === `${count} of 3,000 runs`;
    });
  const some = Object.entries(all.counts).filter(([, count]) => count > 0);
  assert.ok(some.length > 1, JSON.stringify(all.counts));
  for (const [health] of some) {
    const filter = byTestId(page, `health-filter-${health}`);
    await filter.click();
    await page.waitForURL(new RegExp(`health=${health}`));
    await says(health);
    assert.equal(await filter.getAttribute("aria-current"), "true");
    const address = new URL(page.url()).searchParams;
    assert.deepEqual([address.get("health"), address.get("q")], [health, "qwen"]);
    const shown = await rows(page).evaluateAll((all) => all.map((row) => row.dataset.health));
    assert.deepEqual([...new Set(shown)], [health]);
    await page.goBack();
    await told(page, `${all.matching.toLocaleString("en")} of 3,000 runs`);
  }
});

test("the keyboard passes a list by its head alone, however long it is", async (t) => {
  const { page } = await list(t, 3_000);
  await page.locator("#runs-grid").focus();
  await page.keyboard.press("Space");
  await byTestId(page, "restore-selected").waitFor();
  const on = () => page.evaluate(() => [
    document.activeElement.dataset.testid, document.activeElement.closest('[data-testid="run-row"]') !== null,
  ]);
  const heads = await page.locator('#runs-grid [role="columnheader"] button').count();
  for (let n = 0; n <= heads && (await on())[0] !== "restore-selected"; n += 1) {
    await page.keyboard.press("Tab");
    assert.equal((await on())[1], false, "no row has a stop of its own");
  }
  assert.equal((await on())[0], "restore-selected");
  assert.deepEqual(page.problems, []);
});

test("a filter is completed, by its fields and by what they hold", async (t) => {
  const { page, retinker } = await list(t, 3_000);
  const field = byTestId(page, "runs-search");
  const offered = () =>
    byTestId(page, "runs-completions").locator("option").evaluateAll((all) => all.map((one) => one.value));
  const offers = (what, wanted) => until(what, async () => (await offered()).some(wanted));
  assert.equal(await field.getAttribute("list"), "runs-completions");
  await field.focus();
  await offers("the fields", (one) => one === "health:");
  await field.fill("health:po");
  await offers("the healths", (one) => one === "health:poisoned");
  await field.fill("rank>=8 mod");
  await offers("the fields, after what is there", (one) => one === "rank>=8 model:");
  await field.fill("rank>=8 model:");
  const [model] = await until("the models there are", async () => {
    const all = await offered();
    return all.length > 1 && all.every((one) => one.startsWith("rank>=8 model:")) && all;
  });
  // As the browser does with the one that is chosen.
  await field.fill(model);
  await page.waitForURL((url) => url.searchParams.get("q") === model);
  const { body } = await retinker.host(`runs?limit=1&q=${encodeURIComponent(model)}`);
  assert.ok(body.matching > 0 && body.matching < 3_000, `${model} lets ${body.matching} through`);
  await told(page, `${body.matching.toLocaleString("en")} of 3,000 runs`);
  assert.deepEqual(page.problems, []);
});

test("views have names", async (t) => {
  const { page } = await list(t, 500);
  await byTestId(page, "runs-search").fill("rank>=16");
  await page.waitForURL(/q=rank/);
  await byTestId(page, "columns-menu").click();
  await byTestId(page, "column-labels").check();
  await page.waitForURL(/columns=.*labels/);
  await page.keyboard.press("Escape");
  await byTestId(page, "views-menu").click();
  await byTestId(page, "view-name").fill("Large ones");
  await byTestId(page, "view-save").click();
  // Other columns are usual afterwards: the view keeps those that it was saved with.
  await byTestId(page, "columns-menu").click();
  await byTestId(page, "column-labels").uncheck();
  await page.waitForURL((url) => !/labels/.test(url.search));
  await page.keyboard.press("Escape");
  await byTestId(page, "views-menu").click();
  await byTestId(page, "view-link").filter({ hasText: "To be restored" }).click();
  await page.waitForURL(/health=poisoned/);
  await page.reload();
  await rows(page).first().waitFor();
  await byTestId(page, "views-menu").click();
  await picture(page, "runs-views");
  await byTestId(page, "view-link").filter({ hasText: "Large ones" }).click();
  await page.waitForURL(/q=rank%3E%3D16/);
  await page.locator('[role="columnheader"]', { hasText: "Labels" }).waitFor();
  await page.waitForFunction(() => document.querySelector('[data-testid="runs-search"]').value === "rank>=16");
  await byTestId(page, "views-menu").click();
  await page.getByRole("button", { name: "Delete the view Large ones" }).click();
  await byTestId(page, "view-link").filter({ hasText: "Large ones" }).waitFor({ state: "detached" });
  await page.reload();
  await rows(page).first().waitFor();
  await byTestId(page, "views-menu").click();
  await byTestId(page, "view-link").filter({ hasText: "To be restored" }).waitFor();
  assert.equal(await byTestId(page, "view-link").filter({ hasText: "Large ones" }).count(), 0, "it stays deleted");
  // As many as there can be: none goes without a word.
  await page.evaluate(() => {
    const views = Array.from({ length: 50 }, (_, at) => ({ name: `view ${at}`, address: "/?q=a" }));
    localStorage.setItem("retinker.views", JSON.stringify(views));
  });
  await page.reload();
  await rows(page).first().waitFor();
  await byTestId(page, "views-menu").click();
  await byTestId(page, "view-name").fill("one more");
  await byTestId(page, "view-save").click();
  await byTestId(page, "view-refused").getByText("There are fifty already: delete one first.").waitFor();
  assert.equal(await byTestId(page, "view-name").inputValue(), "one more");
  await byTestId(page, "view-link").filter({ hasText: /^view 49$/ }).waitFor();
  // And where the browser keeps nothing, that is told.
  await page.getByRole("button", { name: "Delete the view view 49" }).click();
  await page.evaluate(() => (Storage.prototype.setItem = () => { throw new Error("full"); }));
  await byTestId(page, "view-save").click();
  await byTestId(page, "view-refused").getByText("This browser keeps nothing").waitFor();
  assert.deepEqual(page.problems, []);
});

test("what changed is read and marked, and nothing moves under the pointer", async (t) => {
  const { page, service } = await list(t, 5_000, {}, ["--lasting", "40"]);
  await byTestId(page, "runs-sort").selectOption("activity");
  await page.waitForURL(/sort=activity/);
  const answers = [];
  await page.route("**/retinker/v1/runs?*", async (route) => {
    const response = await route.fetch();
    answers.push(await response.body());
    await route.fulfill({ response });
  });
  const first = await rowAt(page, 0).getAttribute("data-run-id");
  // The newest run stays the newest: one row, where it was.
  await service.touch(1);
  await page.locator('[data-testid="run-row"][data-marked]').first().waitFor();
  // Others go on as well, and on a busy machine several have when the page asks: what has changed is told, and no more.
  const told = async () => {
    await service.touch(1);
    const found = answers.map((body) => [JSON.parse(body.toString()), body.length]);
    return found.find(([{ partial, rows }]) => partial && rows.length > 0 && rows.length <= 2);
  };
  const [, bytes] = await until("a refresh that tells what has changed", told);
  assert.ok(bytes < 4_000, `${bytes} bytes`);
  assert.equal(await rowAt(page, 0).getAttribute("data-run-id"), first);

  // Poisoned runs come first in the usual order; while somebody points at a row, they wait.
  await byTestId(page, "runs-sort").selectOption("health");
  await page.waitForURL((url) => !url.search.includes("sort"));
  await byTestId(page, "runs-search").fill("-health:unrecoverable");
  await page.waitForURL(/q=/);
  const before = await until("the list", async () => (await rows(page).count()) > 5 && rowAt(page, 3).getAttribute("data-run-id"));
  await rowAt(page, 3).hover();
  await service.poison(1);
  await byTestId(page, "runs-withheld").waitFor();
  assert.equal(await rowAt(page, 3).getAttribute("data-run-id"), before);
  await picture(page, "runs-withheld");
  await byTestId(page, "runs-withheld").click();
  await byTestId(page, "runs-withheld").waitFor({ state: "detached" });
  assert.deepEqual(page.problems, []);
});

test("changes are taken in as often as somebody likes", async (t) => {
  const { page, service } = await list(t, 500, {}, ["--lasting", "40"]);
  await byTestId(page, "pace").selectOption("asked");
  await byTestId(page, "runs-sort").selectOption("activity");
  await page.waitForURL(/sort=activity/);
  const newest = () => rowAt(page, 0).locator('[data-label="active"] time').getAttribute("datetime");
  const before = await newest();
  await service.touch(1);
  await byTestId(page, "refresh-now").waitFor();
  assert.equal(await newest(), before, "nothing is taken in before somebody asks");
  // The host may take in what was touched a moment after what it had to tell before.
  await until("what has changed", async () => {
    if (await byTestId(page, "refresh-now").count()) await byTestId(page, "refresh-now").click();
    return (await newest()) !== before;
  });
  await byTestId(page, "refresh-now").waitFor({ state: "detached" });
  await page.reload();
  await rows(page).first().waitFor();
  assert.equal(await byTestId(page, "pace").inputValue(), "asked", "the browser keeps it");
  assert.deepEqual(page.problems, []);
});

test("everything has a name, and the keys have a sheet", async (t) => {
  const { page } = await list(t, 500);
  const name = await rowAt(page, 2).locator(".run-name").textContent();
  const id = await rowAt(page, 2).getAttribute("data-run-id");
  await page.keyboard.press("Control+k");
  await byTestId(page, "palette-text").fill("activ");
  await picture(page, "palette");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/activity/);
  await page.keyboard.press("Control+k");
  await byTestId(page, "palette-text").fill(id.slice(0, 20));
  await byTestId(page, "palette-option").filter({ hasText: name }).first().waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => decodeURIComponent(url.pathname) === `/runs/${id}`);
  await page.keyboard.press("?");
  await byTestId(page, "keys-dialog").locator("kbd").first().waitFor();
  await picture(page, "keys");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.querySelector('[data-testid="keys-dialog"]').open);
  // Where something is being written it is a letter, and whoever wants no single keys has none.
  await page.goto(new URL("/", page.url()).href);
  await byTestId(page, "runs-search").pressSequentially("why?");
  assert.equal(await byTestId(page, "runs-search").inputValue(), "why?");
  assert.equal(await byTestId(page, "keys-dialog").evaluate((dialog) => dialog.open), false);
  await byTestId(page, "runs-search").fill("");
  await page.locator("#page-title").focus();
  await page.keyboard.press("?");
  await byTestId(page, "keys-dialog").getByRole("checkbox").uncheck();
  await page.keyboard.press("Escape");
  await page.locator("#page-title").focus();
  await page.keyboard.press("?");
  assert.equal(await byTestId(page, "keys-dialog").evaluate((dialog) => dialog.open), false);
  assert.deepEqual(page.problems, []);
});

test("on a phone runs are cards, in the dark too", async (t) => {
  const { page } = await list(t, RUNS, { viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  const wide = () => page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok((await wide()) <= 360, `${await wide()} px wide`);
  await byTestId(page, "runs-scroller").evaluate((frame) => frame.scrollTo(0, 184 * 99_990));
  await rowAt(page, RUNS - 6).waitFor();
  await byTestId(page, "runs-scroller").scrollIntoViewIfNeeded();
  await picture(page, "runs-phone-dark");
  assert.deepEqual(page.problems, []);
});
