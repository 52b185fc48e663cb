// A service on which things can be made to go wrong, and runs on it that have lost their state.
import assert from "node:assert/strict";
import { join } from "node:path";

import { byTestId, openBrowser, openPage, openRun, runRow } from "./browser.mjs";
import { Retinker, temporaryDir } from "./retinker.mjs";
import { batchOf } from "./service.mjs";
import { Training, trainWithLog } from "./train.mjs";

/** A service and its console, with these options besides; `fault` makes something go wrong, or with `DELETE` ends it. */
export async function faulty(t, options = []) {
  const retinker = await Retinker.up(t, "--faults", ...options);
  return { retinker, fault: (...asked) => retinker.fault(...asked) };
}

/** The batch that a probe of this text is compared by. */
const { tokens: TEXT, batch: BATCH } = batchOf("To be, or not to be, that is the question");

/** A run whose checkpoint carries a probe, as `save_state_with_probe` of the Rust client saves it; its id. With steps between
 * probe and save, another state is saved than the one that was probed. */
export async function probed(service, { stepsAfterProbe = 0 } = {}) {
  const run = await service.run(await service.session(), 0, "probed");
  let number = 0;
  const ask = async (path, body) => {
    const result = await service.call(path, { model_id: run, seq_id: ++number, ...body });
    assert.equal(result.error, undefined, `${path}: ${JSON.stringify(result)}`);
    return result;
  };
  const step = async () => {
    await ask("forward_backward", { forward_backward_input: { data: [BATCH], loss_fn: "cross_entropy" } });
    await ask("optim_step", { adam_params: { learning_rate: 0.01 } });
  };
  await step();
  const output = await ask("forward", { forward_input: { data: [BATCH], loss_fn: "cross_entropy" } });
  const logprobs = output.loss_fn_outputs[0].logprobs.data;
  assert.equal(logprobs.length, TEXT.length - 1);
  for (let taken = 0; taken < stepsAfterProbe; taken += 1) await step();
  const probe = JSON.stringify({ version: 1, tokens: TEXT, logprobs, tolerance: 0.02 });
  await ask("save_weights", { path: "probed", user_metadata: { "retinker.probe": probe } });
  return run;
}

/** A page of this console. */
export const pageOf = async (t, retinker, options) => openPage(await openBrowser(t), retinker.consoleUrl, options);

/** A run that has lost its state after so many steps, with the redo log that its training program wrote; its id, and the page of
 * it. */
export async function lostWithLog(t, steps) {
  const logs = await temporaryDir(t);
  const { retinker, fault } = await faulty(t, ["--redo-logs", logs]);
  const run = await trainWithLog(retinker.serviceUrl, join(logs, "mine"), steps);
  await fault("poison", { run_id: run, reason: "a machine died" });
  const page = await pageOf(t, retinker);
  await runRow(page, run, "poisoned").locator("a").first().click();
  return { retinker, run, page };
}

/** A service on which runs have lost their state, and which keeps what is loaded waiting until it is told to go on; and a page
 * of its console. */
export async function held(t, count) {
  const { retinker, fault } = await faulty(t);
  const victims = [];
  for (let at = 0; at < count; at++) {
    const saved = ["--steps", "3", "--save-every", "2"];
    const training = Training.create(t, retinker.serviceUrl, { name: `victim ${at}` }, ...saved);
    await training.finish();
    victims.push(training.attachment.model_id);
    await fault("poison", { run_id: victims[at], reason: "a machine died" });
  }
  await fault("pause", { queue_state: "paused_capacity" });
  const page = await pageOf(t, retinker);
  for (const victim of victims) await runRow(page, victim, "poisoned").waitFor();
  const states = async () =>
    (await retinker.host("restores")).body.restores.map((restore) => restore.state).sort();
  return { retinker, victims, page, states, goOn: () => fault("pause", undefined, "DELETE") };
}

/** Restores a poisoned run as the console plans it, and opens the new one; its id. */
export async function restoreOnPage(page, runId) {
  await openRun(page, runId, "poisoned");
  return restoreShown(page);
}

/** The same for the run whose page is shown. */
export async function restoreShown(page) {
  await byTestId(page, "restore-button").click();
  await byTestId(page, "confirm-restore").click();
  const link = byTestId(page, "restored-link");
  await link.waitFor();
  const made = await link.getAttribute("data-run-id");
  await link.click();
  await byTestId(page, "restored-from-link").waitFor();
  return made;
}
