// The Python that a run's page gives out does what it says: word for word, with the official SDK.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { byTestId, openRun } from "./support/browser.mjs";
import { faulty, pageOf } from "./support/lost.mjs";
import { temporaryDir } from "./support/retinker.mjs";
import { Training, python, trainOn } from "./support/train.mjs";

const STEPS = 13;
const SAVED = 8;
/** What would end a text in Python, and what stands in the template. */
const NAME = 'cut "short" \\ {path}';

test("a new run goes on from the newest checkpoint, as the code says", async (t) => {
  const { retinker } = await faulty(t);
  const train = (name, steps) =>
    new Training(t, retinker.serviceUrl, [
      "--create", "retinker/nano-llama", "--rank", "8", "--seed", "7", "--lr", "0.002",
      "--name", name, "--steps", `${steps}`, "--save-every", `${SAVED / 2}`,
    ]);
  const whole = train("gone through", STEPS);
  const losses = await whole.finish();
  const cut = train(NAME, SAVED);
  await cut.finish();
  const id = cut.attachment.model_id;
  const page = await pageOf(t, retinker);
  await openRun(page, id, "healthy");
  await byTestId(page, "snippet-python").waitFor();
  const code = await byTestId(page, "snippet-python").textContent();
  assert.match(code, /^# Starts a new run from this checkpoint, with optimizer state\./);

  await t.test("Python, with the official SDK", async (t) => {
    const went = await trainOn(t, code, { firstStep: SAVED, steps: STEPS - SAVED, rate: 0.002 });
    assert.deepEqual(went, losses.slice(SAVED), "as if it had never been cut short, with the optimizer's state");
    const { training_runs: runs } = await retinker.service("training_runs?limit=100");
    const known = new Set([whole.attachment.model_id, id]);
    const made = runs.filter((run) => !known.has(run.training_run_id));
    assert.equal(made.length, 1, "one run was made, and no other touched");
    assert.equal(made[0].user_metadata.name, NAME, "it has the labels of the run that it comes from");
  });

  await t.test("the line for a recipe of the cookbook", async (t) => {
    const home = await temporaryDir(t);
    await python(t, await byTestId(page, "snippet-cookbook").textContent(), [], { HOME: home });
    const lines = (await readFile(join(home, "tinker/my-run/checkpoints.jsonl"), "utf8")).trim().split("\n");
    const { checkpoints } = await retinker.service(`training_runs/${id}/checkpoints`);
    const newest = checkpoints.sort((a, b) => Date.parse(b.time) - Date.parse(a.time))[0].tinker_path;
    assert.deepEqual(lines.map((line) => JSON.parse(line)), [
      { name: newest.split("/").at(-1), epoch: 0, batch: 0, state_path: newest },
    ]);
  });
  assert.deepEqual(page.problems, []);
});
