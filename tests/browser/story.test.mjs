// The story of the product: train, kill the service in mid-training, see the run flagged, restore it in the browser,
// attach to what the browser shows, go on, and compare the losses with those of a run that nothing happened to.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openConsole, openPage, openRun, picture, runRow } from "./support/browser.mjs";
import { Retinker, lastingUp } from "./support/retinker.mjs";
import { Training, trainOn } from "./support/train.mjs";

const STEPS = 20;
const SAVE_EVERY = 4;
const CREATE = ["--create", "retinker/tiny-llama-1m", "--rank", "8", "--seed", "7", "--lr", "0.002"];
const MORE = 5;

/** Restores the run that the page shows; gives the checkpoint's step and what a taker needs. */
async function restore(page, name, { optimizer = true } = {}) {
  await byTestId(page, "restore-button").click();
  await byTestId(page, "restore-dialog").waitFor();
  await byTestId(page, "plan-summary").waitFor();
  if (!optimizer) {
    await byTestId(page, "optimizer-toggle").uncheck();
    assert.match(await byTestId(page, "optimizer-consequence").innerText(), /cold/, "what weights-only means is said");
  }
  const checkpoint = await byTestId(page, "plan-checkpoint").innerText();
  const lost = await byTestId(page, "plan-lost").innerText();
  assert.ok(lost.trim().length > 0, "the plan says what is lost");
  await picture(page, `${name}-plan`);
  await byTestId(page, "confirm-restore").click();
  await byTestId(page, "restored-link").waitFor();
  await picture(page, `${name}-restored`);
  await byTestId(page, "restored-link").click();
  await byTestId(page, "attachment-session").waitFor();
  await picture(page, `${name}-new-run`);
  // What it was restored from is told, as its parent's.
  await byTestId(page, "checkpoint-origin").waitFor();
  assert.equal((await page.getByRole("heading", { name: /^Checkpoints/ }).innerText()).trim(), "Checkpoints 0");
  const step = Number(checkpoint.match(/step-0*(\d+)/)?.[1]);
  assert.ok(step > 0 && step % SAVE_EVERY === 0, `the plan names a checkpoint: ${checkpoint}`);
  const text = async (id) => (await byTestId(page, id).innerText()).trim();
  return {
    step,
    session: await text("attachment-session"),
    model: await text("attachment-model"),
    seq: await text("attachment-seq"),
  };
}

/** Takes over a restored run with the Rust client and trains on. */
function goOn(t, retinker, taken) {
  return new Training(t, retinker.serviceUrl, [
    "--attach", taken.session, taken.model, taken.seq,
    "--first-step", String(taken.step), "--steps", String(MORE), "--lr", "0.002",
  ]).finish();
}

test("runs killed in mid-training are restored in the browser and go on", async (t) => {
  const args = await lastingUp(t);
  let retinker = await Retinker.start(t, args);

  // What nothing happened to: the losses that everything else is held against.
  const reference = await new Training(t, retinker.serviceUrl, [
    ...CREATE, "--name", "undisturbed", "--steps", `${STEPS}`, "--save-every", `${SAVE_EVERY}`,
  ]).finish();
  assert.equal(reference.length, STEPS);
  assert.ok(reference.at(-1) < reference[0], "training lowers the loss");

  // The victims, all the same run but for their names; and one that never saves.
  const victims = {};
  for (const name of ["with-optimizer", "weights-only", "python", "two-tabs"]) {
    victims[name] = new Training(t, retinker.serviceUrl, [
      ...CREATE, "--name", name, "--steps", `${STEPS}`, "--save-every", `${SAVE_EVERY}`,
    ]);
  }
  victims["never-saved"] = new Training(t, retinker.serviceUrl, [...CREATE, "--name", "never-saved", "--steps", "500"]);
  // Each is held soon after its first checkpoint: with work that is not saved, and far from its end.
  await Promise.all(Object.values(victims).map((victim) => victim.steps(SAVE_EVERY + 1).then(() => victim.pause())));
  await retinker.kill("SIGKILL");
  for (const [name, victim] of Object.entries(victims)) {
    victim.stop();
    assert.deepEqual(victim.losses, reference.slice(0, victim.losses.length).concat(victim.losses.slice(STEPS)),
      `${name} trained as the undisturbed run did`);
  }

  retinker = await Retinker.start(t, args);
  const id = (name) => victims[name].attachment.model_id;
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl);

  await t.test("the list says which runs are poisoned and which are not", async () => {
    for (const name of ["with-optimizer", "weights-only", "python", "two-tabs"]) {
      await runRow(page, id(name), "poisoned").waitFor();
    }
    await runRow(page, id("never-saved"), "unrecoverable").waitFor();
    const healthy = page.locator('[data-testid="run-row"][data-health="healthy"]');
    assert.equal(await healthy.count(), 1);
    assert.match(await healthy.innerText(), /undisturbed/);
    await picture(page, "runs");
  });

  await t.test("a run without a checkpoint says so and offers no restore", async () => {
    await openRun(page, id("never-saved"), "unrecoverable");
    assert.match(await byTestId(page, "no-restore-reason").innerText(), /checkpoint/i);
    assert.equal(await byTestId(page, "restore-button").count(), 0);
    await picture(page, "no-checkpoint");
  });

  await t.test("with optimizer state the losses are those of the undisturbed run, step for step", async () => {
    await openRun(page, id("with-optimizer"), "poisoned");
    const taken = await restore(page, "with-optimizer");
    const losses = await goOn(t, retinker, taken);
    assert.deepEqual(losses, reference.slice(taken.step, taken.step + MORE));

    // Old and new know each other, and the new run keeps the old one's labels.
    const run = await retinker.service(`training_runs/${taken.model}`);
    assert.equal(run.user_metadata.name, "with-optimizer");
    assert.equal(run.user_metadata["retinker.restored_from"], id("with-optimizer"));
    await byTestId(page, "restored-from-link").click();
    await byTestId(page, "restored-to-link").waitFor();
    assert.match(decodeURIComponent(await byTestId(page, "restored-to-link").getAttribute("href")), new RegExp(taken.model));
    await picture(page, "old-run");
  });

  await t.test("weights only: the same first loss, another after the first optimizer step", async () => {
    await openRun(page, id("weights-only"), "poisoned");
    const taken = await restore(page, "weights-only", { optimizer: false });
    const losses = await goOn(t, retinker, taken);
    const undisturbed = reference.slice(taken.step, taken.step + MORE);
    assert.equal(losses[0], undisturbed[0]);
    assert.notEqual(losses[1], undisturbed[1]);
  });

  await t.test("the Python snippet goes on with the run that the browser shows", async () => {
    await openRun(page, id("python"), "poisoned");
    const taken = await restore(page, "python");
    const snippet = await byTestId(page, "snippet-python").innerText();
    const losses = await trainOn(t, snippet, { firstStep: taken.step, steps: MORE, rate: 0.002 });
    assert.deepEqual(losses, reference.slice(taken.step, taken.step + MORE));
  });

  await t.test("a second tab and a second click do not restore twice", async () => {
    const second = await openPage(browser, retinker.consoleUrl);
    const tabs = [page, second];
    for (const tab of tabs) {
      await openRun(tab, id("two-tabs"), "poisoned");
      await byTestId(tab, "restore-button").click();
      await byTestId(tab, "plan-summary").waitFor();
    }
    await Promise.all(tabs.map((tab) => byTestId(tab, "confirm-restore").dblclick()));
    const links = [];
    for (const tab of tabs) {
      await byTestId(tab, "restored-link").first().waitFor();
      links.push(await byTestId(tab, "restored-link").first().getAttribute("href"));
    }
    assert.equal(links[0], links[1]);
    const { training_runs: runs } = await retinker.service("training_runs?limit=100");
    const successors = runs.filter((run) => run.user_metadata?.["retinker.restored_from"] === id("two-tabs"));
    assert.equal(successors.length, 1);
    assert.deepEqual(second.problems, []);
  });

  await t.test("a restored run that is poisoned before its own first save is restored again", async () => {
    const { training_runs: before } = await retinker.service("training_runs?limit=100");
    const restored = before.find((run) => run.user_metadata?.["retinker.restored_from"] === id("with-optimizer"));
    assert.ok(restored && !restored.last_checkpoint, "it has taken steps and saved nothing");
    await page.goto("about:blank"); // a page whose host is gone reports errors, and should
    await retinker.kill("SIGKILL");
    retinker = await Retinker.start(t, args);
    await openConsole(page, retinker.consoleUrl);
    await openRun(page, restored.training_run_id, "poisoned");
    const taken = await restore(page, "second-generation");
    const losses = await goOn(t, retinker, taken);
    assert.deepEqual(losses, reference.slice(taken.step, taken.step + MORE));
    const run = await retinker.service(`training_runs/${taken.model}`);
    assert.equal(run.user_metadata["retinker.generation"], "2");
    assert.equal(run.user_metadata["retinker.root"], id("with-optimizer"));
  });

  await t.test("a program that attaches with used-up numbers is refused, and changes nothing", async () => {
    const { training_runs: runs } = await retinker.service("training_runs?limit=100");
    const run = runs.find((run) => run.user_metadata?.["retinker.generation"] === "2");
    const [session, model] = [run.training_run_id.split(":")[0], run.training_run_id];
    const late = new Training(t, retinker.serviceUrl, [
      "--attach", session, model, "1", "--first-step", "0", "--steps", "1", "--lr", "0.002",
    ]);
    const { code } = await late.exited;
    assert.equal(code, 1);
    assert.match(late.stderr, /sequence number was reused/);
    assert.deepEqual(late.losses, []);
  });

  await t.test("the host's guard and the page's errors", async () => {
    assert.deepEqual(page.problems, []);
    const origin = new URL(retinker.consoleUrl).origin;
    const refused = await fetch(`${origin}/retinker/v1/runs`);
    assert.equal(refused.status, 401);
    const foreign = await fetch(`${origin}/retinker/v1/runs`, {
      headers: { "x-retinker-token": new URL(retinker.consoleUrl).hash.slice(7), origin: "http://evil.example" },
    });
    assert.equal(foreign.status, 403);
  });
});
