// What a page shows only while something goes on, or after it went wrong, looked at by axe like every page and dialog
// (`accessible.test.mjs`): in light and dark, on a desk's screen, a phone's and a 4K one.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible, assertFits, assertLargeEnough } from "./support/accessible.mjs";
import { byTestId, holdBack, openBrowser, openRun, picture, runRow } from "./support/browser.mjs";
import { faulty, lostWithLog, pageOf, probed } from "./support/lost.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { closeAll, openAll, unexpected } from "./support/pages.mjs";
import { until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

const LOOKS = [
  { look: "light", colorScheme: "light", width: 1280 },
  { look: "dark on the narrowest screen", colorScheme: "dark", width: 360 },
  { look: "light on a 4K screen", colorScheme: "light", width: 3840 },
];

/** The page as it is now, in every look. */
async function looksWell(page, what, looks = LOOKS) {
  for (const { look, colorScheme, width } of looks) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width, height: 860 });
    // What is drawn by the screen's width is drawn again in the next frame.
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    await picture(page, `${what}, ${look}`.replaceAll(/[^\w]+/g, "-"));
    await assertAccessible(page, `${what} in ${look}`);
    await assertFits(page, `${what} in ${look}`);
    await assertLargeEnough(page, `${what} in ${look}`);
  }
  await page.setViewportSize({ width: 1280, height: 860 });
}

/** A run of this session with so many checkpoints; its id and their paths. */
async function saved(service, session, number, name, count) {
  const run = await service.run(session, number, name);
  const paths = [];
  for (let at = 1; at <= count; at += 1) {
    paths.push((await service.call("save_weights", { model_id: run, seq_id: at, path: `saved-${at}` })).path);
  }
  return { run, paths };
}

const at = (retinker, path) => new URL(path, retinker.consoleUrl).href;

test("lost runs are accessible from the banner to the end of their restores", async (t) => {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const victims = [await probed(service)];
  const session = await service.session();
  for (const number of [0, 1]) victims.push((await saved(service, session, number, `victim ${number}`, 2)).run);
  for (const victim of victims) await fault("poison", { run_id: victim, reason: "a machine died" });
  await fault("pause", { queue_state: "paused_capacity" });
  const page = await pageOf(t, retinker);
  for (const victim of victims) await runRow(page, victim, "poisoned").waitFor();
  await byTestId(page, "incident-banner").waitFor();
  await t.test("an incident on the list of runs", () => looksWell(page, "an incident"));

  // One is restored by another plan first, so that the restores together have one that is refused.
  const json = { method: "POST", headers: { "content-type": "application/json" } };
  const post = (path, body) => retinker.host(path, { ...json, body: JSON.stringify(body) });
  await byTestId(page, "plan-all").click();
  await byTestId(page, "bulk-outlook").getByText("All 3 can be restored.").waitFor();
  const { body: other } = await post("plans", { run_id: victims[1], optimizer: false });
  assert.equal((await post("restores", { plan: other.plan })).status, 200);
  await byTestId(page, "confirm-bulk").click();
  const stands = (stand) => page.locator(`[data-testid="bulk-item"][data-stand="${stand}"]`);
  await stands("under_way").nth(1).waitFor();
  await stands("failed").waitFor();
  await t.test("restores of several runs under way", () => looksWell(page, "restores of several runs under way"));

  await page.keyboard.press("Escape");
  await byTestId(page, "bulk-chip").waitFor();
  await t.test("the way back to them", () => looksWell(page, "the way back to restores of several runs"));

  await page.goto(at(retinker, `/runs/${encodeURIComponent(victims[0])}`));
  await byTestId(page, "verdict").waitFor();
  await t.test("a run that is being restored", () => looksWell(page, "a run that is being restored"));
  await page.goto(at(retinker, "/activity"));
  await page.locator('[data-testid="restore-row"][data-state="loading"]').first().waitFor();
  await t.test("restores under way, on Activity", () => looksWell(page, "restores under way, on Activity"));

  await fault("pause", undefined, "DELETE");
  await until("all restores", async () => {
    const { body } = await retinker.host("restores");
    return body.restores.length === 3 && body.restores.every((restore) => restore.state === "adopted");
  });
  await page.locator('[data-testid="restore-row"][data-state="adopted"]').nth(2).waitFor();
  await t.test("restores that have ended, on Activity", () => looksWell(page, "restores that have ended, on Activity"));
  assert.deepEqual(page.problems.filter((problem) => !/409/.test(problem)), []);
});

test("a restore is accessible under way and verified, and so are several at their end", async (t) => {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const run = await probed(service);
  const session = await service.session();
  const victims = [];
  for (const number of [0, 1]) victims.push((await saved(service, session, number, `victim ${number}`, 1)).run);
  for (const lost of [run, ...victims]) await fault("poison", { run_id: lost, reason: "a machine died" });
  await fault("pause", { queue_state: "paused_capacity" });
  const page = await pageOf(t, retinker);
  await openRun(page, run, "poisoned");
  await byTestId(page, "restore-button").click();
  await byTestId(page, "confirm-restore").click();
  const progress = (state) => page.locator(`[data-testid="restore-progress"][data-state="${state}"]`);
  await progress("loading").waitFor();
  await t.test("a restore under way", () => looksWell(page, "a restore under way"));
  await fault("pause", undefined, "DELETE");
  await progress("adopted").waitFor();
  await progress("adopted").getByText("Verified: it gives the log-probabilities").waitFor();
  await t.test("a restore that is verified", () => looksWell(page, "a restore that is verified"));

  // Of two, one is cancelled.
  await fault("pause", { queue_state: "paused_capacity" });
  await page.goto(at(retinker, "/"));
  for (const victim of victims) await runRow(page, victim, "poisoned").locator("input").check();
  await byTestId(page, "restore-selected").click();
  await byTestId(page, "confirm-bulk").click();
  const items = byTestId(page, "bulk-item");
  await items.first().getByRole("button", { name: /^Cancel the restore of/ }).click();
  await page.locator('[data-testid="bulk-item"][data-stand="cancelled"]').waitFor();
  await fault("pause", undefined, "DELETE");
  await byTestId(page, "bulk-progress").getByText("Restored 1 of 2, 1 cancelled").waitFor();
  await t.test("restores of several runs at their end", () => looksWell(page, "restores of several runs at their end"));
  const { body } = await retinker.host("restores");
  assert.deepEqual(body.restores.map((restore) => restore.state).sort(), ["adopted", "adopted", "cancelled"]);
  assert.deepEqual(page.problems, []);
});

test("what is done with checkpoints is accessible while it goes on, and when it was refused", async (t) => {
  const { retinker } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const { paths } = await saved(service, await service.session(), 0, "of six", 6);
  const page = await pageOf(t, retinker);
  await page.goto(at(retinker, "/checkpoints"));
  await byTestId(page, "checkpoint-item").nth(5).waitFor();
  await byTestId(page, "select-page").check();
  await t.test("the selection of checkpoints", () => looksWell(page, "the selection of checkpoints"));

  // Most are gone by the time that the service is asked: enough for a list that is scrolled.
  const go = await holdBack(page, "**/retinker/v1/checkpoints/actions");
  await byTestId(page, "bulk-publish").click();
  await page.locator('[data-testid="job"][data-running="true"]').waitFor();
  await t.test("a job under way", () => looksWell(page, "a job under way"));
  const [kept, ...deleted] = paths;
  for (const path of deleted) {
    const [run, rest] = path.replace("tinker://", "").split(/\/(.*)/);
    const gone = await fetch(`${retinker.serviceUrl}/api/v1/training_runs/${run}/checkpoints/${rest}`, {
      method: "DELETE",
      headers: { "x-api-key": "tml-test" },
    });
    assert.ok(gone.ok, await gone.text());
  }
  go();
  const failures = byTestId(page, "job-failures").locator("li");
  await failures.nth(deleted.length - 1).waitFor();
  const told = (await failures.allInnerTexts()).join("\n");
  for (const path of deleted) assert.ok(told.includes(path), told);
  // What is selected has a bar of its own, which stands over the list.
  await byTestId(page, "select-none").click();
  await t.test("a job that has ended with refusals", () => looksWell(page, "a job that has ended with refusals"));
  const { checkpoints } = await retinker.service("checkpoints?limit=100");
  assert.deepEqual(checkpoints.map((one) => [one.tinker_path, one.public]), [[kept, true]], "the other was published");
  assert.deepEqual(page.problems, []);
});

test("going back to a step is accessible before, when it is refused, and when it is done", async (t) => {
  const { page } = await lostWithLog(t, 12);
  await byTestId(page, "redo-summary").getByText("Steps 0 to 12 can be gone back to.").waitFor();
  await t.test("before", () => looksWell(page, "a step to go back to"));
  await byTestId(page, "redo-step").fill("15");
  await byTestId(page, "redo-step").press("Enter");
  await byTestId(page, "redo-problem").waitFor();
  await t.test("refused", () => looksWell(page, "a step that cannot be gone back to"));
  await byTestId(page, "redo-step").fill("11");
  await byTestId(page, "redo-summary").getByText("Steps 0 to 12 can be gone back to.").waitFor();
  await byTestId(page, "redo-step").press("Enter");
  await byTestId(page, "redo-path").waitFor();
  await t.test("done", () => looksWell(page, "a step that was gone back to"));
  assert.deepEqual(unexpected(page.problems), []);
});

test("every page that shows something of the service is accessible while the service is away", async (t) => {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const session = await service.session({ display_name: "seen before", project_id: "kitchen" });
  const { run: healthy } = await saved(service, session, 0, "healthy", 1);
  const { run: poisoned } = await saved(service, session, 1, "poisoned", 1);
  await fault("poison", { run_id: poisoned, reason: "a machine died" });
  const proxy = await Misbehaving.start(t, retinker.serviceUrl);
  const console = await proxy.console(t);
  const tabs = await openAll(await openBrowser(t), { healthy, poisoned }, console);
  // What was restored is in the other console's journal, and this one has done nothing.
  const shows = ({ name, there }) => (name === "activity" ? "no-restores" : there);
  for (const { of, page } of tabs) await byTestId(page, shows(of)).first().waitFor();
  await proxy.misbehave("down");
  for (const { of, page } of tabs) {
    await t.test(of.name, async () => {
      await page.bringToFront();
      const banner = page.locator('[data-testid="banner-problem"][data-code="service_unreachable"]');
      await banner.first().waitFor({ timeout: 60_000 });
      await looksWell(page, `${of.name} while the service is away`, LOOKS.slice(0, 2));
    });
  }
  await closeAll(tabs);
});
