// A restored run is handed over on its page: who owns it is said before and after, and that a program has come.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible } from "./support/accessible.mjs";
import { byTestId, picture } from "./support/browser.mjs";
import { faulty, pageOf, restoreOnPage } from "./support/lost.mjs";
import { Training } from "./support/train.mjs";

/** The page of a run that was just restored, and what a taker needs. */
async function restored(t) {
  const { retinker, fault } = await faulty(t);
  const saved = ["--steps", "2", "--save-every", "2"];
  const training = Training.create(t, retinker.serviceUrl, { name: "victim" }, ...saved);
  await training.finish();
  const victim = training.attachment.model_id;
  await fault("poison", { run_id: victim, reason: "a machine died" });
  const page = await pageOf(t, retinker);
  const made = await restoreOnPage(page, victim);
  await byTestId(page, "hand-over-panel").waitFor();
  const { attachment } = await restore(retinker);
  assert.equal(attachment.model_id, made);
  return { retinker, page, attachment };
}

/** The only restore, as the host tells it. */
async function restore(retinker) {
  const { body } = await retinker.host("restores");
  assert.equal(body.restores.length, 1);
  return body.restores[0];
}

/** A program that takes the run over, and goes on until the test ends. */
async function take(t, retinker, { session_id, model_id, next_seq_id }) {
  const training = new Training(t, retinker.serviceUrl, [
    "--attach", session_id, model_id, `${next_seq_id}`, "--first-step", "2", "--steps", "100000", "--lr", "0.001",
  ]);
  await training.steps(1);
}

const owner = (page, text) => byTestId(page, "session-owner").getByText(text).waitFor();

test("what a taker needs is shown, and a taker's coming by itself; then the run is handed over", async (t) => {
  const { retinker, page, attachment } = await restored(t);
  await owner(page, /retinker owns this run's session and keeps it alive until a program takes it over/);
  for (const [id, value] of [
    ["attachment-session", attachment.session_id],
    ["attachment-model", attachment.model_id],
    ["attachment-seq", `${attachment.next_seq_id}`],
  ]) {
    assert.equal((await byTestId(page, id).innerText()).trim(), value);
  }
  const panel = byTestId(page, "hand-over-panel");
  const tabs = panel.getByRole("tab");
  assert.deepEqual(await tabs.allInnerTexts(), ["Python", "Rust", "TypeScript"]);
  for (const tab of await tabs.all()) {
    await tab.click();
    const code = await panel.getByRole("tabpanel").locator("code").innerText();
    const needed = [retinker.serviceUrl, attachment.session_id, attachment.model_id, `${attachment.next_seq_id}`];
    for (const part of needed) assert.ok(code.includes(part), `${part} in:\n${code}`);
  }
  await assertAccessible(page, "a run to be taken over");
  await picture(page, "hand-over-offered");

  await take(t, retinker, attachment);
  await owner(page, /A program has taken this run over; its last request was at/);
  await owner(page, /retinker keeps the session alive beside it until you hand it over/);
  // One attach uses the number up: who copied it now would be refused.
  assert.equal(await byTestId(page, "attachment-seq").count(), 0);
  assert.equal(await panel.getByRole("tab").count(), 0);
  assert.equal((await restore(retinker)).state, "adopted", "nothing is handed over by itself");
  await picture(page, "hand-over-taken");

  await byTestId(page, "hand-over-button").click();
  await byTestId(page, "hand-over-button").waitFor({ state: "detached" });
  assert.match(await byTestId(page, "session-owner").innerText(), /handed over/i);
  assert.equal((await restore(retinker)).state, "handed_over");
  await picture(page, "handed-over");
  await page.reload();
  await owner(page, /A program has taken this run over[^]*Handed over\. retinker keeps the session alive until/);
  assert.equal(await byTestId(page, "hand-over-button").count(), 0, "once is enough");
  assert.deepEqual(page.problems, []);
});

test("a run that is handed over first shows in every tab what a taker needs until one has come", async (t) => {
  const { retinker, page, attachment } = await restored(t);
  const other = await pageOf(t, retinker);
  await other.goto(page.url());
  const tabs = [page, other];
  for (const tab of tabs) await owner(tab, /retinker owns this run's session/);
  await byTestId(page, "hand-over-button").click();
  for (const tab of tabs) {
    await byTestId(tab, "hand-over-button").waitFor({ state: "detached" });
    await owner(tab, /Handed over\. retinker keeps the session alive until [^]* beside whoever attaches/);
    assert.equal((await byTestId(tab, "attachment-seq").innerText()).trim(), `${attachment.next_seq_id}`);
    assert.ok((await byTestId(tab, "snippet-python").innerText()).includes(attachment.model_id));
  }
  assert.equal((await restore(retinker)).state, "handed_over");
  await take(t, retinker, attachment);
  for (const tab of tabs) {
    await owner(tab, /A program has taken this run over/);
    await byTestId(tab, "attachment-seq").waitFor({ state: "detached" });
    assert.deepEqual(tab.problems, []);
  }
});

test("a hand-over that does not come through is told, and can be tried again", async (t) => {
  const { retinker, page } = await restored(t);
  const panel = byTestId(page, "hand-over-panel");
  await page.context().setOffline(true);
  await byTestId(page, "hand-over-button").click();
  await panel.getByRole("alert").waitFor();
  await picture(page, "hand-over-failed");
  assert.equal((await restore(retinker)).state, "adopted");
  await page.context().setOffline(false);
  await byTestId(page, "hand-over-button").click();
  await owner(page, /handed over/i);
  assert.equal(await panel.getByRole("alert").count(), 0);
  assert.equal((await restore(retinker)).state, "handed_over");
});
