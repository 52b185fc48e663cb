// Many runs that failed together are restored together: what was shown, a few at a time, each with its own end.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible } from "./support/accessible.mjs";
import { byTestId, holdBack, openBrowser, openPage, picture, runRow } from "./support/browser.mjs";
import { faulty, held } from "./support/lost.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Retinker, lastingUp, until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";
import { Training } from "./support/train.mjs";

/** A service on which so many runs have lost their state together, and a sound one. */
async function incident(t, count) {
  const args = await lastingUp(t);
  let retinker = await Retinker.start(t, args);
  const train = (name, ...more) => Training.create(t, retinker.serviceUrl, { name }, ...more);
  await train("sound", "--steps", "2", "--save-every", "2").finish();
  const victims = Array.from({ length: count }, (_, at) => train(`victim ${at}`, "--steps", "2000", "--save-every", "2"));
  await Promise.all(victims.map((victim) => victim.steps(3).then(() => victim.pause())));
  await retinker.kill("SIGKILL");
  victims.forEach((victim) => victim.stop());
  retinker = await Retinker.start(t, args);
  return { retinker, victims: victims.map((victim) => victim.attachment.model_id) };
}

/** The same runs as two incidents, which takes more time than a test has: only the answer is cut in two. */
async function severalIncidents(page, victims) {
  const [first, ...others] = victims;
  await page.route("**/retinker/v1/incidents*", async (route) => {
    const answer = await route.fetch();
    const { incidents } = await answer.json();
    const cut = (run_ids) => ({ ...incidents[0], run_ids, recoverable: run_ids.length });
    await route.fulfill({ response: answer, json: { incidents: [cut(others), cut([first])] } });
  });
  await page.reload();
  const banner = byTestId(page, "incident-banner");
  await banner.getByText("4 runs wait to be restored: they lost their state in 2 incidents").waitFor();
  await picture(page, "incidents");
  const plans = byTestId(page, "plan-incident");
  assert.deepEqual(await plans.allInnerTexts(), ["Plan 3\u2026", "Plan 1\u2026"]);
  await plans.first().click();
  const outlook = byTestId(page, "bulk-outlook");
  await outlook.getByText("All 3 can be restored.").waitFor();
  const planned = byTestId(page, "bulk-plans").locator("li[data-run-id]");
  assert.deepEqual((await planned.evaluateAll((lines) => lines.map((line) => line.dataset.runId))).sort(), [...others].sort());
  await page.keyboard.press("Escape");
  await page.unroute("**/retinker/v1/incidents*");
  // The same banner stands where it is told what was done.
  await page.goto(new URL("/activity", page.url()).href);
  await byTestId(page, "plan-all").getByText("Plan all 4").waitFor();
  await page.goBack();
}

test("an incident is one banner, and all its runs are restored from it", async (t) => {
  const { retinker, victims } = await incident(t, 4);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  for (const victim of victims) await runRow(page, victim, "poisoned").waitFor();
  await byTestId(page, "incident-banner").waitFor();
  await picture(page, "incident");
  await severalIncidents(page, victims);
  await byTestId(page, "plan-all").click();
  await page.waitForFunction(() => document.querySelector('[data-testid="bulk-outlook"]')?.textContent === "All 4 can be restored.");
  const planned = byTestId(page, "bulk-plans").locator("li[data-run-id]");
  assert.deepEqual(
    (await planned.evaluateAll((lines) => lines.map((line) => line.dataset.runId))).sort(),
    [...victims].sort(),
  );
  await picture(page, "bulk-plans");
  await byTestId(page, "confirm-bulk").click();
  await page.waitForFunction(() => document.querySelector('[data-testid="bulk-progress"]')?.textContent === "Restored 4 of 4");
  assert.deepEqual(
    await byTestId(page, "bulk-item").evaluateAll((lines) => lines.map((line) => line.dataset.stand)),
    ["restored", "restored", "restored", "restored"],
  );
  await picture(page, "bulk-done");
  await page.keyboard.press("Escape");
  for (const victim of victims) await runRow(page, victim, "recovered").waitFor();
  await byTestId(page, "incident-banner").waitFor({ state: "detached" });
  const { body } = await retinker.host("restores");
  assert.deepEqual(body.restores.map((restore) => restore.plan.run_id).sort(), [...victims].sort());
  assert.ok(body.restores.every((restore) => restore.plan.optimizer));
  assert.deepEqual(page.problems, []);
});

test("of what is selected only what can be restored is, as it was shown, and a stop begins no more", async (t) => {
  const { retinker, victims } = await incident(t, 3);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  for (const victim of victims) await runRow(page, victim, "poisoned").waitFor();
  await byTestId(page, "runs-scroller").focus();
  await page.keyboard.press("Control+a");
  await page.waitForFunction(() => document.querySelector('[data-testid="selected-count"]')?.textContent === "4 runs selected");
  await byTestId(page, "restore-selected").click();
  const outlook = (text) =>
    page.waitForFunction((wanted) => document.querySelector('[data-testid="bulk-outlook"]')?.textContent === wanted, text);
  await outlook("3 of 4 runs can be restored; 1 cannot.");
  assert.match(await byTestId(page, "bulk-refused").locator("summary").textContent(), /^1 run: This run needs no restore/);
  await byTestId(page, "optimizer-toggle").uncheck();
  await outlook("3 of 4 runs can be restored; 1 cannot.");

  // Somebody else restores one of them meanwhile, by another plan: that one says so, and the others go on.
  const post = (path, body) =>
    retinker.host(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const { body: answer } = await post("plans", { run_id: victims[0] });
  await post("restores", { plan: answer.plan });
  await until("the other restore", async () => {
    const { body } = await retinker.host("restores");
    return body.restores.every((restore) => restore.state === "adopted");
  });
  await byTestId(page, "confirm-bulk").click();
  await page.waitForFunction(() => document.querySelector('[data-testid="bulk-progress"]')?.textContent === "Restored 2 of 3, 1 failed");
  const stand = (id) => page.locator(`[data-testid="bulk-item"][data-run-id="${id}"]`);
  assert.equal(await stand(victims[0]).getAttribute("data-stand"), "failed");
  assert.match(await stand(victims[0]).textContent(), /restored by another plan already/);
  await picture(page, "bulk-refused");
  const { body } = await retinker.host("restores");
  assert.equal(body.restores.length, 3, "each run once");
  assert.equal(body.restores.filter((restore) => !restore.plan.optimizer).length, 2, "as it was chosen");
  assert.deepEqual(page.problems.filter((problem) => !/409/.test(problem)), []);
});

test("a stop begins no more, and the restores go on while one looks elsewhere", async (t) => {
  const { retinker, victims } = await incident(t, 10);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  for (const victim of victims) await runRow(page, victim, "poisoned").waitFor();
  await byTestId(page, "plan-all").click();
  await page.waitForFunction(() => document.querySelector('[data-testid="bulk-outlook"]')?.textContent === "All 10 can be restored.");
  // The first ones are held on their way, so that the others have to wait.
  const go = await holdBack(page, "**/retinker/v1/restores");
  await byTestId(page, "confirm-bulk").click();
  await page.waitForFunction(() => document.querySelectorAll('[data-stand="begins"]').length === 8);
  await byTestId(page, "bulk-stop").click();
  await page.keyboard.press("Escape");
  await byTestId(page, "bulk-chip").waitFor();
  await page.getByRole("link", { name: "Activity" }).click();
  await page.waitForURL(/activity/);
  go();
  // What it came to stays there until somebody has seen it.
  const chip = byTestId(page, "bulk-chip").filter({ hasText: "Restored 8 of 10, 2 not begun" });
  await chip.click();
  assert.equal(await byTestId(page, "bulk-item").count(), 10);
  assert.match(await byTestId(page, "bulk-item").last().innerText(), /Restored/);
  await assertAccessible(page, "what many restores came to");
  await page.keyboard.press("Escape");
  await byTestId(page, "bulk-chip").waitFor({ state: "detached" });
  const { body } = await retinker.host("restores");
  assert.equal(body.restores.length, 8);
  assert.ok(body.restores.every((restore) => restore.state === "adopted"));
  assert.deepEqual(page.problems, []);
});

test("to cancel all cancels what is being begun as well", async (t) => {
  const { retinker, victims, page, goOn } = await held(t, 2);
  await page.locator('[data-testid="runs-scroller"]').focus();
  await page.keyboard.press("Control+a");
  await byTestId(page, "restore-selected").click();
  const go = await holdBack(page, "**/retinker/v1/restores");
  await byTestId(page, "confirm-bulk").click();
  await page.waitForFunction(() => document.querySelectorAll('[data-stand="begins"]').length === 2);
  await byTestId(page, "bulk-cancel").click();
  go();
  await byTestId(page, "bulk-progress").getByText("Restored 0 of 2, 2 cancelled").waitFor();
  await goOn();
  const { body } = await retinker.host("restores");
  assert.deepEqual(body.restores.map((restore) => restore.state), victims.map(() => "cancelled"));
  assert.deepEqual(page.problems, []);
});

test("on a service that is slow with each answer every restore is begun, and none is told as failed", async (t) => {
  const { retinker: up, fault } = await faulty(t);
  const service = new Service(up.serviceUrl);
  const session = await service.session();
  const victims = [];
  for (let number = 0; number < 4; number += 1) {
    const run = await service.run(session, number, `victim ${number}`);
    await service.call("save_weights", { model_id: run, seq_id: 1, path: "saved" });
    await fault("poison", { run_id: run, reason: "a machine died" });
    victims.push(run);
  }
  const proxy = await Misbehaving.start(t, up.serviceUrl);
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  for (const victim of victims) await runRow(page, victim, "poisoned").waitFor();
  await byTestId(page, "runs-scroller").focus();
  await page.keyboard.press("Control+a");
  await byTestId(page, "restore-selected").click();
  await byTestId(page, "bulk-outlook").getByText("All 4 can be restored.").waitFor();
  await proxy.misbehave("slow");
  await byTestId(page, "confirm-bulk").click();
  const stands = () => byTestId(page, "bulk-item").evaluateAll((lines) => lines.map((line) => line.dataset.stand));
  // Each takes several answers to be begun, and they are begun one after the other.
  await until("all of them to be begun", async () => {
    const now = await stands();
    assert.ok(!now.includes("failed"), await byTestId(page, "bulk-dialog").innerText());
    return now.length === 4 && now.every((stand) => stand === "under_way" || stand === "restored");
  }, 240);
  await picture(page, "bulk-slow");
  await proxy.misbehave(null);
  await page.waitForFunction(() => document.querySelector('[data-testid="bulk-progress"]')?.textContent === "Restored 4 of 4", undefined, { timeout: 120_000 });
  const { body } = await retinker.host("restores");
  assert.equal(body.restores.length, 4, "each once");
  assert.deepEqual(page.problems, []);
});
