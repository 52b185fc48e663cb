// What people do in the console, done without a pointer. Nothing in this file moves or clicks one, and whatever was
// done, the keyboard is on something afterwards from which it goes on.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { assertOn, assertSomewhere, escape, goTo, isOn, named, press, tabTo } from "./support/keyboard.mjs";
import { held } from "./support/lost.mjs";
import { Retinker } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";
import { Simulated, consoleOn } from "./support/simulated.mjs";
import { Training } from "./support/train.mjs";

/** A service and its console. */
async function start(t) {
  const retinker = await Retinker.up(t);
  return { retinker, service: new Service(retinker.serviceUrl) };
}

const IN_DIALOG = "dialog[open], dialog[open] *";

test("a restore under way is cancelled", async (t) => {
  const { page, states, goOn } = await held(t, 1);
  const progress = (state) => page.locator(`[data-testid="restore-progress"][data-state="${state}"]`).waitFor();
  await goTo(page, "victim 0");
  await page.waitForURL(/\/runs\//);
  await assertOn(page, "#page-title");
  await press(page, named("restore-button"));
  await byTestId(page, "plan-summary").waitFor();
  await assertOn(page, IN_DIALOG);
  await press(page, named("confirm-restore"));
  await progress("loading");
  await t.test("the keyboard is in the dialog when the restore has begun", () => assertOn(page, IN_DIALOG));
  // What opened the dialog is gone as long as the run is being restored.
  await byTestId(page, "restore-button").waitFor({ state: "detached" });
  await press(page, named("cancel-restore"));
  await progress("cancelled");
  assert.deepEqual(await states(), ["cancelled"]);
  await t.test("the keyboard is in the dialog when it is cancelled", () => assertOn(page, IN_DIALOG));
  await picture(page, "keys-cancelled");

  await escape(page);
  await t.test("the keyboard is on the page when the dialog is closed", () => assertSomewhere(page));
  // It goes on from there: the run is restored after all.
  await goOn();
  await press(page, named("restore-button"));
  await page.getByRole("button", { name: "Make a new plan" }).waitFor();
  await press(page, "dialog[open] .button.primary");
  await byTestId(page, "plan-summary").waitFor();
  await t.test("the keyboard is in the dialog when there is a new plan", () => assertOn(page, IN_DIALOG));
  await press(page, named("confirm-restore"));
  await progress("adopted");
  assert.deepEqual(await states(), ["adopted", "cancelled"]);
  await press(page, named("restored-link"));
  await byTestId(page, "restored-from-link").waitFor();
  await assertOn(page, "#page-title");
  assert.deepEqual(page.problems, []);
});

test("checkpoints are deleted, one and several", async (t) => {
  const { retinker } = await start(t);
  const often = ["--steps", "8", "--save-every", "2"];
  const training = Training.create(t, retinker.serviceUrl, { name: "of four" }, ...often);
  await training.finish();
  const saved = async () => (await retinker.service("checkpoints?limit=100")).checkpoints.map((one) => one.tinker_path);
  const shows = (count) =>
    page.waitForFunction((n) => document.querySelectorAll('[data-testid="checkpoint-item"]').length === n, count);
  const ended = () => page.locator('[data-testid="job"][data-running="false"]').waitFor();
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "run-row").first().waitFor();
  await goTo(page, "Checkpoints");
  await page.waitForURL(/\/checkpoints$/);
  await shows(4);
  await assertOn(page, "#page-title");

  // One, by what can be done with it.
  await press(page, named("more"));
  await byTestId(page, "checkpoint-dialog").waitFor();
  await assertOn(page, IN_DIALOG);
  const path = await byTestId(page, "checkpoint-item").first().getAttribute("data-path");
  await press(page, named("delete"));
  await byTestId(page, "preview-told").waitFor();
  await t.test("the keyboard is in the dialog that tells what goes", () => assertOn(page, IN_DIALOG));
  await tabTo(page, named("confirm-delete"));
  assert.equal((await saved()).length, 4, "nothing was done yet");
  await escape(page);
  await assertOn(page, named("more"));
  await page.keyboard.press("Enter");
  await press(page, named("delete"));
  await byTestId(page, "preview-told").waitFor();
  await press(page, named("confirm-delete"));
  await ended();
  await shows(3);
  assert.equal((await saved()).includes(path), false);
  await t.test("the keyboard is on something when the row is gone", () => assertSomewhere(page));
  await picture(page, "keys-deleted");

  // Several: two boxes, and what is done with those that are selected.
  await press(page, named("job-close"));
  await byTestId(page, "job").waitFor({ state: "detached" });
  await t.test("the keyboard is on something when what was told is put away", () => assertSomewhere(page));
  await tabTo(page, `${named("checkpoint-item")} input`);
  await page.keyboard.press("Space");
  await byTestId(page, "selection").getByText("1 checkpoint selected").waitFor();
  await page.keyboard.press("Tab");
  await tabTo(page, `${named("checkpoint-item")} input`);
  await page.keyboard.press("Space");
  await byTestId(page, "selection").getByText("2 checkpoints selected").waitFor();
  await assertOn(page, `${named("checkpoint-item")} input`);
  await press(page, named("bulk-delete"));
  await byTestId(page, "preview-told").waitFor();
  assert.match(await byTestId(page, "preview-told").innerText(), /^2 checkpoints go/);
  await press(page, named("confirm-delete"));
  await ended();
  await shows(1);
  assert.equal((await saved()).length, 1);
  await t.test("the keyboard is on something when the rows are gone", () => assertSomewhere(page));
  assert.deepEqual(page.problems, []);
});

test("two runs are chosen and compared, and one is left out", async (t) => {
  const service = await Simulated.start(t, ["--runs", "12"]);
  const retinker = await consoleOn(t, service.url, 12);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "run-row").first().waitFor();
  const ids = await byTestId(page, "run-row").evaluateAll((rows) => rows.map((row) => row.dataset.runId));
  const count = (text) => byTestId(page, "selected-count").getByText(text, { exact: true }).waitFor();
  await tabTo(page, named("runs-scroller"));
  await page.keyboard.press("Space");
  await count("1 run selected");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Space");
  await count("2 runs selected");
  assert.equal(await isOn(page, named("runs-scroller")), true, "the list keeps the keyboard");
  await press(page, named("compare-selected"));
  await page.waitForURL(/\/compare/);
  await byTestId(page, "compare-differences").waitFor();
  await assertOn(page, "#page-title");
  const compared = () =>
    byTestId(page, "compare-legend").locator("li").evaluateAll((lines) => lines.map((line) => line.dataset.runId));
  assert.deepEqual((await compared()).sort(), ids.slice(0, 2).sort());
  await picture(page, "keys-compared");

  await press(page, `${named("compare-legend")} [aria-label^="Leave out"]`);
  await byTestId(page, "compare-differences").waitFor({ state: "detached" });
  assert.equal((await compared()).length, 1);
  await t.test("the keyboard is on something when the run is left out", () => assertSomewhere(page));
  assert.deepEqual(page.problems, []);
});

test("a model is chosen and tried, and its tokens are read one by one", async (t) => {
  const { retinker } = await start(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "welcome-state").waitFor();
  const done = () => page.locator('[data-testid="try-result"][data-state="done"]').waitFor();
  const told = (text) => byTestId(page, "try-result").locator(named("token-told")).getByText(text).waitFor();
  await goTo(page, "Try it");
  await page.waitForURL(/\/try/);
  await byTestId(page, "try-run").waitFor();
  await assertOn(page, "#page-title");
  await tabTo(page, named("try-source"));
  await page.keyboard.type("retinker/nano-llama");
  await tabTo(page, named("try-prompt"));
  await page.keyboard.type("Tell me");
  await tabTo(page, named("try-max-tokens"));
  await page.keyboard.press("Control+a");
  await page.keyboard.type("8");
  // The likeliest of each: by chance one could be that which ends a text.
  await tabTo(page, named("try-temperature"));
  await page.keyboard.press("Control+a");
  await page.keyboard.type("0");
  await press(page, named("try-run"));
  await done();
  await t.test("the keyboard is on something when the samples have come", () => assertSomewhere(page));
  await tabTo(page, named("sample-tokens"));
  await told(/^Token 1 of 8/);
  await page.keyboard.press("ArrowRight");
  await told(/^Token 2 of 8/);
  await page.keyboard.press("End");
  await told(/^Token 8 of 8.*log-probability/);
  await assertOn(page, named("sample-tokens"));
  await press(page, '[data-testid="try-result"] summary');
  await byTestId(page, "token-table").waitFor();
  assert.equal(await byTestId(page, "token-logprob").count(), 8);
  await assertOn(page, "summary");
  await picture(page, "keys-tried");

  // The same again, from where one writes.
  await tabTo(page, named("try-prompt"));
  await page.keyboard.type(" more");
  await page.keyboard.press("Control+Enter");
  await byTestId(page, "token-table").waitFor({ state: "detached" });
  await done();
  await assertOn(page, named("try-prompt"));
  assert.deepEqual(page.problems, []);
});

test("a session is finished", async (t) => {
  const { retinker, service } = await start(t);
  const session = await service.session({ display_name: "to be finished" });
  await service.run(session, 0, "its run");
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "run-row").waitFor();
  await goTo(page, "Sessions");
  await byTestId(page, "session-row").waitFor();
  await assertOn(page, "#page-title");
  await press(page, `${named("session-row")} a`);
  await page.waitForURL(/\/sessions\/./);
  await byTestId(page, "session-state").waitFor();
  await assertOn(page, "#page-title");
  await press(page, named("finish-session"));
  await byTestId(page, "finish-consequence").waitFor();
  await assertOn(page, IN_DIALOG);
  await escape(page);
  await assertOn(page, named("finish-session"));
  await page.keyboard.press("Enter");
  await tabTo(page, named("finish-reason"));
  await page.keyboard.type("Succ");
  assert.equal(await byTestId(page, "finish-reason").inputValue(), "success");
  await press(page, named("confirm"));
  await byTestId(page, "finish-session").waitFor({ state: "detached" });
  await byTestId(page, "session-state").getByText("Finished").waitFor();
  const [ended] = await service.search({ session_id: session });
  assert.deepEqual([ended.status.type, ended.status.reason.type], ["client_finished", "success"]);
  await t.test("the keyboard is on something when the session is finished", () => assertSomewhere(page));
  await picture(page, "keys-finished");
  assert.deepEqual(page.problems, []);
});

test("a dialog that is opened again at once stays open", async (t) => {
  const { retinker, service } = await start(t);
  const session = await service.session({ display_name: "looked at twice" });
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.goto(new URL(`/sessions/${session}`, retinker.consoleUrl).href);
  await press(page, named("finish-session"));
  await byTestId(page, "finish-consequence").waitFor();
  // Before the browser has told the page that the dialog was closed: as Escape and Enter do when the page is busy.
  await page.evaluate(async (opener) => {
    const dialog = document.querySelector("dialog[open]");
    const told = new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    dialog.close();
    document.querySelector(opener).click();
    await told;
    await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  }, named("finish-session"));
  await t.test("it is open, and shows what it is for", async () => {
    assert.equal(await page.locator("dialog[open]").count(), 1);
    assert.equal(await byTestId(page, "finish-consequence").count(), 1);
  });
  assert.deepEqual(page.problems, []);
});
