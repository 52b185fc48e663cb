// A newcomer has a list of runs to look at in less than a minute. The one test that measures time: all of it counts,
// from the start of the process on, that of the browser too.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Retinker, temporaryDir } from "./support/retinker.mjs";

const MINUTE = 60_000;

/** From nothing to a run in the list, by what is shown alone; `begin` does what the first page asks for. */
async function first(t, more, begin) {
  const dir = await temporaryDir(t);
  const started = performance.now();
  const left = () => Math.max(1, MINUTE - (performance.now() - started));
  const retinker = await Retinker.start(t, ["up", ...more, "--port", "0", "--service-port", "0", "--data-dir", dir]);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await begin(page, left);
  const row = byTestId(page, "run-row").first();
  await row.waitFor({ timeout: left() });
  const took = performance.now() - started;
  t.diagnostic(`${(took / 1000).toFixed(1)} s to a list with a run`);
  assert.ok(took < MINUTE, `${took} ms`);
  await picture(page, `newcomer-${more.length}`);

  // It is a list to go on from: the run has a name that leads to its page.
  await row.locator("a.run-name").click();
  await byTestId(page, "verdict").waitFor();
  assert.deepEqual(page.problems, []);
}

test("a newcomer who begins the demonstration has runs in less than a minute", async (t) => {
  await first(t, ["--no-demo"], async (page, left) => {
    const begin = byTestId(page, "demo-begin");
    await begin.waitFor({ timeout: left() });
    assert.equal(await byTestId(page, "run-row").count(), 0, "there is nothing yet");
    await begin.click();
  });
});

test("a newcomer who only starts it has runs in less than a minute", async (t) => {
  await first(t, [], async () => {});
});
