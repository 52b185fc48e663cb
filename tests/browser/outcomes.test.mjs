// What became of a restore is told where one looks: that the state was compared and is the one that was saved, or why
// there is no new run.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible } from "./support/accessible.mjs";
import { byTestId, openRun, picture, runRow } from "./support/browser.mjs";
import { faulty, pageOf, probed, restoreOnPage } from "./support/lost.mjs";
import { until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

/** A lost run whose checkpoint carries a probe, and a page of its console. */
async function lost(t, options) {
  const { retinker, fault } = await faulty(t);
  const run = await probed(new Service(retinker.serviceUrl), options);
  await fault("poison", { run_id: run, reason: "a machine died" });
  return { retinker, fault, run, page: await pageOf(t, retinker) };
}

/** The newest restore, as the host tells it. */
async function newest(retinker) {
  const { restores } = (await retinker.host("restores")).body;
  return restores.sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at))[0];
}

/** Begins the restore on the run's page and waits until it has failed. */
async function fails(page, run) {
  await openRun(page, run, "poisoned");
  await byTestId(page, "restore-button").click();
  await byTestId(page, "confirm-restore").click();
  await page.locator('[data-testid="restore-progress"][data-state="failed"]').waitFor();
}

test("a restored run that was compared with what was saved is said to be verified", async (t) => {
  const { retinker, run, page } = await lost(t);
  await openRun(page, run, "poisoned");
  await byTestId(page, "restore-button").click();
  await byTestId(page, "confirm-restore").click();
  const progress = page.locator('[data-testid="restore-progress"][data-state="adopted"]');
  await progress.waitFor();
  const told = /Verified: it gives the log-probabilities that were recorded when it was saved/;
  assert.match(await progress.innerText(), told);
  await picture(page, "verified");
  const { verification } = await newest(retinker);
  assert.equal(verification.verdict, "verified");
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: "Activity" }).click();
  const row = page.locator('[data-testid="restore-row"][data-state="adopted"]');
  await row.waitFor();
  assert.match(await row.innerText(), told);
  assert.deepEqual(page.problems, []);
});

test("a restored run that is not what was probed takes nobody's place, and the page says so", async (t) => {
  const { retinker, run, page } = await lost(t, { stepsAfterProbe: 3 });
  await fails(page, run);
  const record = await newest(retinker);
  assert.equal(record.verification.verdict, "different");
  const told = await page.locator('[data-testid="restore-progress"]').innerText();
  assert.ok(told.includes(record.error), told);
  await picture(page, "different");
  await page.keyboard.press("Escape");
  const failed = byTestId(page, "restore-failed");
  await failed.waitFor();
  assert.match(await failed.innerText(), /The last restore failed: [^]*log-probabilities are up to/);
  assert.equal(await byTestId(page, "restored-to-link").count(), 0);
  await picture(page, "different-run");
  await page.goto(new URL("/", page.url()).href);
  await runRow(page, run, "poisoned").waitFor();
  assert.deepEqual(page.problems, []);
});

test("a restore that fails says why, on the run's page and among what happened, and can be asked for again", async (t) => {
  const { retinker, fault, run, page } = await lost(t);
  const message = "the archive is on a tape that nobody finds";
  await fault("operations", { operation: "load_weights", message, category: "user", times: 1 });
  await fails(page, run);
  assert.match(await page.locator('[data-testid="restore-progress"]').innerText(), new RegExp(message));
  await picture(page, "restore-failed-dialog");
  assert.equal(await byTestId(page, "restore-failed").count(), 0, "said once: the dialog says it");
  await page.keyboard.press("Escape");
  const failed = byTestId(page, "restore-failed");
  await failed.waitFor();
  const { error, state } = await newest(retinker);
  assert.equal(state, "failed");
  assert.ok(error.includes(message), error);
  assert.equal((await failed.innerText()).trim(), `The last restore failed: ${error}`);
  await assertAccessible(page, "a run whose restore failed");
  await picture(page, "restore-failed");
  await page.reload();
  await failed.waitFor();
  assert.ok((await failed.innerText()).includes(message), "it is still told to who comes later");
  await page.locator('[data-testid="timeline-entry"][data-kind="failed"]').waitFor();

  await page.getByRole("link", { name: "Activity" }).click();
  const row = page.locator('[data-testid="restore-row"][data-state="failed"]');
  await row.waitFor();
  assert.match(await row.innerText(), new RegExp(message));

  // What went wrong went wrong once.
  await restoreOnPage(page, run);
  await byTestId(page, "restored-from-link").click();
  await byTestId(page, "restored-to-link").waitFor();
  assert.equal(await failed.count(), 0, "what failed before is over");
  await until("the end", async () => (await newest(retinker)).state === "adopted");
  assert.deepEqual(page.problems, []);
});
