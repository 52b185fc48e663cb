// From which checkpoint a run is restored can be chosen by a rule, for one run and for many, and whether its optimizer is looked at.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible } from "./support/accessible.mjs";
import { byTestId, openRun, picture, runRow } from "./support/browser.mjs";
import { faulty, pageOf } from "./support/lost.mjs";
import { until } from "./support/retinker.mjs";
import { Service, batchOf } from "./support/service.mjs";

const { batch: BATCH } = batchOf("To be, or not to be");

/** Two lost runs with three checkpoints each, the second of which has the lowest loss; and a page of their console. */
async function start(t) {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const session = await service.session();
  const runs = [];
  for (const name of ["one", "two"]) {
    const run = await service.run(session, runs.length, name);
    let number = 0;
    const ask = (path, body) => service.call(path, { model_id: run, seq_id: ++number, ...body });
    for (const [path, loss] of [["a", "3"], ["b", "1"], ["c", "2"]]) {
      await ask("forward_backward", { forward_backward_input: { data: [BATCH], loss_fn: "cross_entropy" } });
      await ask("optim_step", { adam_params: { learning_rate: 0.01 } });
      await ask("save_weights", { path, user_metadata: { loss } });
    }
    await fault("poison", { run_id: run, reason: "a machine died" });
    runs.push(run);
  }
  const page = await pageOf(t, retinker);
  for (const run of runs) await runRow(page, run, "poisoned").waitFor();
  return { retinker, runs, page };
}

test("a run is restored from what a rule chooses, and its optimizer is looked at first", async (t) => {
  const { retinker, runs, page } = await start(t);
  await openRun(page, runs[0], "poisoned");
  await byTestId(page, "restore-button").click();
  const planned = (name) =>
    page.locator(`[data-testid="plan-checkpoint"][data-path="tinker://${runs[0]}/weights/${name}"]`).waitFor();
  await planned("c");
  const rule = byTestId(page, "plan-strategy");
  await rule.selectOption("1");
  await planned("b");
  await rule.selectOption("2");
  await planned("a");
  await rule.selectOption("min");
  await planned("b");
  await rule.selectOption("max");
  await planned("a");
  // A label that no checkpoint has leaves none to choose.
  await byTestId(page, "plan-label").fill("reward");
  await byTestId(page, "plan-label").press("Tab");
  await byTestId(page, "no-plan").waitFor();
  await rule.selectOption("min");
  await byTestId(page, "plan-label").fill("loss");
  await byTestId(page, "plan-label").press("Tab");
  await planned("b");
  await byTestId(page, "check-optimizer").check();
  await picture(page, "choosing");
  await assertAccessible(page, "a plan by a rule");
  await byTestId(page, "confirm-restore").click();
  const progress = page.locator('[data-testid="restore-progress"][data-state="adopted"]');
  await progress.waitFor();
  assert.match(await progress.innerText(), /The optimizer's state is restored: after one step it makes a difference/);
  const { body } = await retinker.host("restores");
  const [{ plan }] = body.restores;
  assert.deepEqual([plan.checkpoint.tinker_path, plan.check_optimizer], [`tinker://${runs[0]}/weights/b`, true]);
  assert.deepEqual(page.problems, []);
});

test("many runs are restored from what a rule chooses for each", async (t) => {
  const { retinker, runs, page } = await start(t);
  await byTestId(page, "runs-scroller").focus();
  await page.keyboard.press("Control+a");
  await byTestId(page, "restore-selected").click();
  const from = (name) => byTestId(page, "bulk-plans").locator(`[title$="/weights/${name}"]`);
  await from("c").nth(1).waitFor();
  await byTestId(page, "plan-strategy").selectOption("1");
  await from("b").nth(1).waitFor();
  await picture(page, "choosing-for-many");
  await assertAccessible(page, "plans of many by a rule");
  await byTestId(page, "confirm-bulk").click();
  await byTestId(page, "bulk-progress").getByText("Restored 2 of 2").waitFor();
  await until("both restores", async () => (await retinker.host("restores")).body.restores.length === 2);
  const { body } = await retinker.host("restores");
  const paths = body.restores.map((restore) => restore.plan.checkpoint.tinker_path).sort();
  assert.deepEqual(paths, runs.map((run) => `tinker://${run}/weights/b`).sort());
  assert.deepEqual(page.problems, []);
});
