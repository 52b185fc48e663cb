// A restore that should not have been begun is cancelled while it is under way; the run can be restored afterwards.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible } from "./support/accessible.mjs";
import { byTestId, openRun, picture, runRow } from "./support/browser.mjs";
import { held } from "./support/lost.mjs";

const progress = (page, state) => page.locator(`[data-testid="restore-progress"][data-state="${state}"]`).waitFor();

test("a restore under way is cancelled, and the run is restored when it is asked for again", async (t) => {
  const { victims, page, states, goOn } = await held(t, 1);
  await openRun(page, victims[0], "poisoned");
  await byTestId(page, "restore-button").click();
  await byTestId(page, "confirm-restore").click();
  await progress(page, "loading");
  await picture(page, "cancel-offered");
  await byTestId(page, "cancel-restore").click();
  await progress(page, "cancelled");
  assert.match(await page.locator(".progress-told").innerText(), /was cancelled/);
  assert.equal(await byTestId(page, "cancel-restore").count(), 0);
  await assertAccessible(page, "a cancelled restore");
  await picture(page, "cancelled");
  assert.deepEqual(await states(), ["cancelled"]);

  await goOn();
  await page.getByRole("button", { name: "Make a new plan" }).click();
  await byTestId(page, "confirm-restore").click();
  await progress(page, "adopted");
  assert.deepEqual(await states(), ["adopted", "cancelled"]);
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: "Activity" }).click();
  await page.locator('[data-testid="restore-row"][data-state="cancelled"]').waitFor();
  assert.deepEqual(page.problems, []);
});

test("of many that go on at once one is cancelled, and the others are restored", async (t) => {
  const { victims, page, states, goOn } = await held(t, 2);
  await byTestId(page, "plan-all").click();
  await byTestId(page, "confirm-bulk").click();
  const item = (id, stand) => page.locator(`[data-testid="bulk-item"][data-run-id="${id}"][data-stand="${stand}"]`);
  for (const victim of victims) await item(victim, "under_way").waitFor();
  await picture(page, "bulk-cancel-offered");
  await page.getByRole("button", { name: "Cancel the restore of victim 0" }).click();
  await item(victims[0], "cancelled").waitFor();
  await goOn();
  await item(victims[1], "restored").waitFor();
  assert.equal(await byTestId(page, "bulk-progress").innerText(), "Restored 1 of 2, 1 cancelled");
  await picture(page, "bulk-cancelled");
  assert.deepEqual(await states(), ["adopted", "cancelled"]);
  await page.keyboard.press("Escape");
  await runRow(page, victims[0], "poisoned").waitFor();
  await runRow(page, victims[1], "recovered").waitFor();
  assert.deepEqual(page.problems, []);
});

test("all that is under way is cancelled at once, and what has not begun does not begin", async (t) => {
  const { page, states } = await held(t, 2);
  await byTestId(page, "plan-all").click();
  await byTestId(page, "bulk-plans").getByText("optimizer step").first().waitFor();
  await byTestId(page, "bulk-plans").locator("summary").first().click();
  await byTestId(page, "bulk-plans").getByText("With the optimizer's state.").first().waitFor();
  await picture(page, "bulk-plan-unfolded");
  await byTestId(page, "confirm-bulk").click();
  const stands = (stand, count) =>
    page.waitForFunction(
      ([stand, count]) => document.querySelectorAll(`[data-testid="bulk-item"][data-stand="${stand}"]`).length === count,
      [stand, count],
    );
  await stands("under_way", 2);
  await byTestId(page, "bulk-cancel").click();
  await stands("cancelled", 2);
  assert.equal(await byTestId(page, "bulk-progress").innerText(), "Restored 0 of 2, 2 cancelled");
  assert.deepEqual(await states(), ["cancelled", "cancelled"]);
  assert.deepEqual(page.problems, []);
});
