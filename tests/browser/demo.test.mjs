// An empty data directory begins with real content: runs trained live, and a real failure.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Retinker, temporaryDir, until } from "./support/retinker.mjs";

test("an empty data directory fills with trained runs, and a trainer fails", async (t) => {
  const dataDir = await temporaryDir(t);
  const args = ["up", "--port", "0", "--service-port", "0", "--data-dir", dataDir];
  let retinker = await Retinker.start(t, args);
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl);
  await byTestId(page, "demo-progress").waitFor();
  await picture(page, "demo-training");

  const rows = (health) => page.locator(`[data-testid="run-row"][data-health="${health}"]`);
  await rows("unrecoverable").first().waitFor({ timeout: 240_000 });
  await rows("poisoned").first().waitFor();
  await until("the demonstration's end", async () => !(await retinker.host("status")).body.demo.running);
  await picture(page, "demo-done");

  const { training_runs: runs } = await retinker.service("training_runs?limit=100");
  assert.ok(runs.length >= 5, `a handful of runs, not ${runs.length}`);
  const distinct = (look) => new Set(runs.map(look)).size;
  assert.equal(distinct((run) => run.user_metadata.name), runs.length, "every run has a name of its own");
  assert.ok(distinct((run) => run.lora_rank) >= 3, "different LoRA ranks");
  assert.ok(distinct((run) => run.user_metadata.learning_rate) >= 3, "different learning rates");

  const poisoned = runs.filter((run) => run.corrupted);
  assert.ok(poisoned.some((run) => run.last_checkpoint), "a poisoned run with a checkpoint");
  assert.ok(poisoned.some((run) => !run.last_checkpoint), "a poisoned run without any");
  assert.ok(runs.some((run) => !run.corrupted), "not every run is poisoned");

  let compared = 0;
  for (const run of runs) {
    const { checkpoints } = await retinker.service(`training_runs/${run.training_run_id}/checkpoints`);
    const losses = checkpoints
      .map((checkpoint) => checkpoint.user_metadata)
      .sort((a, b) => Number(a.step) - Number(b.step))
      .map((labels) => Number(labels.held_out_loss));
    if (losses.length < 2) continue;
    assert.ok(losses.at(-1) < losses[0], `${run.user_metadata.name}: the held-out loss falls: ${losses}`);
    compared += 1;
  }
  assert.ok(compared >= 4, "several runs were saved more than once");

  // A second start keeps all of it, and trains nothing anew.
  await retinker.kill("SIGTERM");
  retinker = await Retinker.start(t, args);
  const list = await until("the list", async () => {
    const { body } = await retinker.host("runs");
    return body.as_of ? body : null;
  });
  assert.equal(list.total, runs.length);
  assert.equal((await retinker.host("status")).body.demo ?? null, null);
});

test("a demonstration that was cut off is given again at the next start", async (t) => {
  const dataDir = await temporaryDir(t);
  const args = ["up", "--port", "0", "--service-port", "0", "--data-dir", dataDir];
  let retinker = await Retinker.start(t, args);
  const runs = async () => (await retinker.service("training_runs?limit=100")).training_runs;
  await until("the first runs", async () => (await runs()).length > 0);
  await retinker.kill("SIGKILL");
  retinker = await Retinker.start(t, args);
  await until("the demonstration's end", async () => {
    const { demo } = (await retinker.host("status")).body;
    return demo && !demo.running && demo.steps_done > 0;
  });
  const all = await runs();
  assert.ok(all.some((run) => !run.corrupted), "some runs are healthy");
  assert.ok(all.some((run) => run.corrupted && run.last_checkpoint), "one can be restored");
});
