// Texts of the service are shown as they are: markup strikes nobody, letters that go the other way stay in their place, and
// ten thousand of them break no page.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible, assertFits } from "./support/accessible.mjs";
import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Simulated, consoleOn } from "./support/simulated.mjs";

/** So many runs of the simulated service have odd texts; all of them are poisoned, so that there is a plan to look at. */
const ODD = 12;
const RUNS = 40;

test("no text of the service is markup, or breaks a page", async (t) => {
  const service = await Simulated.start(t, ["--runs", RUNS, "--every", "1", "--odd"]);
  const retinker = await consoleOn(t, service.url, RUNS);
  const browser = await openBrowser(t);
  const { body } = await retinker.host(`runs?limit=${RUNS}&sort=activity`);
  const ids = body.rows.map((row) => row.run.training_run_id).slice(0, ODD);
  for (const width of [1280, 380]) {
    const page = await openPage(browser, retinker.consoleUrl, { viewport: { width, height: 900 } });
    const sound = async (what) => {
      assert.equal(await page.evaluate(() => window.struck), undefined, `${what} has run a text as a script`);
      const made = await page.evaluate(() =>
        document.querySelectorAll('main img, main script, main b, main i:not(.placeholder i), [onload], [onerror]').length);
      assert.equal(made, 0, `${what} has made elements of a text`);
      await assertFits(page, `${what} at ${width}`);
    };
    await t.test(`the list at ${width}`, async () => {
      await page.goto(new URL("/?sort=activity", retinker.consoleUrl).href);
      await byTestId(page, "run-row").first().waitFor();
      await picture(page, `odd-runs-${width}`);
      let text = "";
      for (let at = 0; at <= ODD; at += 4) {
        await byTestId(page, "runs-scroller").evaluate((frame, row) => {
          frame.scrollTo(0, row * frame.querySelector('[data-testid="run-row"]').offsetHeight);
        }, at);
        await page.locator(`[data-testid="run-row"][aria-rowindex="${at + 2}"]`).waitFor();
        text += await page.locator("main").innerText();
        await sound("the list");
      }
      assert.match(text, /<img src=x onerror=/, "the markup can be read");
      await assertAccessible(page, `odd runs at ${width}`);
    });
    for (const [n, id] of ids.entries()) {
      await t.test(`run ${n} at ${width}`, async () => {
        await page.goto(new URL(`/runs/${encodeURIComponent(id)}`, retinker.consoleUrl).href);
        await byTestId(page, "verdict").waitFor();
        await picture(page, `odd-run-${n}-${width}`);
        await sound(`run ${n}`);
        if ((await byTestId(page, "restore-button").count()) === 0) return;
        await byTestId(page, "restore-button").click();
        // Where the odd text is nothing at all, no checkpoint fits it.
        await byTestId(page, "plan-summary").or(byTestId(page, "no-plan")).first().waitFor();
        await picture(page, `odd-plan-${n}-${width}`);
        await sound(`the plan of run ${n}`);
      });
    }
    assert.deepEqual(page.problems, []);
    await page.context().close();
  }
});
