// A step of a run is gone back to from its page, by the redo log that its training program writes.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible } from "./support/accessible.mjs";
import { byTestId, picture } from "./support/browser.mjs";
import { lostWithLog } from "./support/lost.mjs";
import { unexpected } from "./support/pages.mjs";
import { Service } from "./support/service.mjs";

test("a step of a poisoned run is gone back to from its page", async (t) => {
  const { retinker, run, page } = await lostWithLog(t, 14);
  const summary = byTestId(page, "redo-summary");
  await summary.getByText("Steps 0 to 14 can be gone back to.").waitFor();
  await byTestId(page, "redo-step").fill("12");
  await summary.getByText("which has step 10: 4 requests").waitFor();
  await picture(page, "redo");
  await byTestId(page, "redo-step").fill("15");
  await summary.getByText("Step 15 cannot be gone back to: the redo log covers steps 0 to 14.").waitFor();
  await byTestId(page, "redo-step").press("Enter");
  await byTestId(page, "redo-problem").getByText("covers steps 0 to 14").waitFor();
  // What is no number is not sent.
  await byTestId(page, "redo-step").fill("1e1");
  await byTestId(page, "redo-problem").waitFor({ state: "detached" });
  await byTestId(page, "redo-step").press("Enter");
  assert.equal(await byTestId(page, "redo-going").count(), 0);
  await byTestId(page, "redo-step").fill("12");
  await summary.getByText("which has step 10: 4 requests").waitFor();
  // By keyboard alone.
  await byTestId(page, "redo-step").press("Enter");
  const path = byTestId(page, "redo-path");
  await path.waitFor();
  const saved = await path.innerText();
  assert.match(saved, /^tinker:\/\/.+\/weights\/step-000012$/);
  await picture(page, "redo-done");
  await assertAccessible(page, "a run whose redo log was used");
  // The checkpoint is one, with its optimizer: a run can be made from it.
  const service = new Service(retinker.serviceUrl);
  const again = { session_id: await service.session(), model_seq_id: 0, path: saved, optimizer: true };
  assert.ok((await service.call("load_weights", again)).model_id);
  await byTestId(page, "redo-run").click();
  await page.waitForURL((url) => decodeURIComponent(url.pathname) === `/runs/${saved.split("/")[2]}`);
  await byTestId(page, "lineage").locator(`[data-run-id="${run}"], a`).first().waitFor();
  assert.deepEqual(unexpected(page.problems), []);
});
