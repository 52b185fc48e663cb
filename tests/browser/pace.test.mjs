// How often the page takes in what changes.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage } from "./support/browser.mjs";
import { until } from "./support/retinker.mjs";
import { Simulated, consoleOn } from "./support/simulated.mjs";

test("changes are taken in by themselves after the time that was chosen, and never when nobody asks", async (t) => {
  const service = await Simulated.start(t, ["--runs", "50", "--lasting", "40"]);
  const retinker = await consoleOn(t, service.url, 50);
  const page = await openPage(await openBrowser(t), "about:blank");
  await page.clock.install();
  const fresh = (state) => page.locator(`[data-testid="freshness"][data-state="${state}"]`);
  const live = () => fresh("live").waitFor();
  /** What is shown is known to be old, and the time that is told is the rows' own. */
  const held = () => fresh("held").getByText("Held").waitFor();
  await page.goto(retinker.consoleUrl);
  await byTestId(page, "run-row").first().waitFor();
  await live();
  await page.goto(new URL("/?sort=activity", retinker.consoleUrl).href);
  await live();
  const asked = [];
  page.on("request", (request) => /\/v1\/runs\?/.test(request.url()) && asked.push(request.url()));
  const newest = () =>
    byTestId(page, "run-row").first().locator('[data-label="active"] time').getAttribute("datetime");
  const behind = byTestId(page, "refresh-now");
  /** Has something happen, which the page hears of. */
  const happens = async () => {
    await service.touch(1);
    await behind.waitFor();
  };

  await byTestId(page, "pace").selectOption({ label: "every 5 s" });
  // From here on no time passes for the page but what is let pass.
  await page.clock.pauseAt(Date.now() + 60_000);
  await page.clock.runFor(5_000);
  await behind.waitFor({ state: "detached" });
  await page.clock.runFor(1_000);
  const before = await newest();
  await happens();
  asked.length = 0;
  await page.clock.runFor(3_000);
  assert.deepEqual(asked, [], "nothing is asked before five seconds are over");
  assert.equal(await newest(), before);
  await page.clock.runFor(3_000);
  await behind.waitFor({ state: "detached" });
  await page.waitForFunction(
    (before) => document.querySelector('[data-testid="run-row"] [data-label="active"] time').dateTime !== before,
    before,
  );
  const after = await newest();
  const { body } = await retinker.host("runs?sort=activity&limit=1");
  assert.equal(Date.parse(after), Date.parse(body.rows[0].run.last_request_time), "the row tells the service's time");

  await byTestId(page, "pace").selectOption({ label: "when I ask" });
  await happens();
  await held();
  const readAt = () => fresh("held").locator("time").getAttribute("datetime");
  const taken = await readAt();
  asked.length = 0;
  await page.clock.runFor(30_000);
  // By the host's clock, which this page's runs away from.
  assert.ok(Date.parse(await readAt()) <= Date.parse(taken), "the rows are no newer, whatever the host has read since");
  assert.deepEqual(asked, [], "nothing is asked while nobody asks");
  assert.equal(await newest(), after);
  await behind.click();
  await until("what has changed", async () => {
    await page.clock.runFor(500);
    return (await newest()) !== after;
  });

  await t.test("nor when the page has lost the host for a while and found it again", async () => {
    const now = await newest();
    await happens();
    let opened = 0;
    page.on("request", (request) => (opened += request.url().includes("/v1/events")));
    // The host is heard of by its own clock: for the page it has been silent for too long.
    await until("it to be asked for its events again", async () => {
      await page.clock.runFor(20_000);
      return opened > 0;
    });
    await held();
    assert.equal(await behind.count(), 1, "what has happened is said to be there");
    await page.clock.runFor(1_000);
    assert.equal(await newest(), now, "and taken in when somebody asks");
  });
  assert.deepEqual(page.problems, []);
});
