// What happens to tabs: a clock that is wrong, two that act at once, one that sleeps, and one whose host goes away.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openConsole, openPage, picture, runRow } from "./support/browser.mjs";
import { DAY, putWrong, show, state } from "./support/clocks.mjs";
import { Retinker, freePort, temporaryDir } from "./support/retinker.mjs";
import { scene } from "./support/scene.mjs";
import { Simulated, consoleOn } from "./support/simulated.mjs";

for (const [what, wrong] of [["a day behind", -DAY], ["a day ahead", DAY]]) {
  test(`a tab whose clock is ${what} works, and shows when things were`, async (t) => {
    const made = await scene(t);
    const browser = await openBrowser(t);
    const context = await browser.newContext();
    await putWrong(context, wrong);
    const page = await context.newPage();
    const problems = [];
    page.on("pageerror", (error) => problems.push(String(error)));
    await page.goto(made.retinker.consoleUrl);
    await runRow(page, made.poisoned, "poisoned").waitFor();
    await runRow(page, made.healthy, "healthy").waitFor();
    await state(page, "live");
    // The exact time is the service's, whatever the tab takes for now.
    const row = runRow(page, made.poisoned, "poisoned");
    const { last_request_time: last } = await made.retinker.service(`training_runs/${made.poisoned}`);
    const shown = await row.locator(".c-activity time, time").first().getAttribute("datetime");
    assert.equal(new Date(shown).getTime(), Math.floor(new Date(last).getTime()), "the row tells the service's time");
    await row.locator(".c-activity", { hasText: /just now|\d+ (s|min) ago/ }).waitFor();
    await page.goto(new URL(`/runs/${encodeURIComponent(made.poisoned)}`, page.url()).href);
    await byTestId(page, "restore-button").click();
    await byTestId(page, "plan-summary").waitFor();
    assert.doesNotMatch(await page.locator("body").innerText(), /NaN|Invalid|-\d+ (second|minute|hour|day)/);
    await picture(page, `clock-${what.replaceAll(" ", "-")}`);
    assert.deepEqual(problems, []);
  });
}

test("a tab that nobody sees reads nothing, and after an hour is as true as ever", async (t) => {
  const runs = 300;
  const service = await Simulated.start(t, ["--runs", runs]);
  const retinker = await consoleOn(t, service.url, runs);
  const page = await openPage(await openBrowser(t), "about:blank");
  await page.clock.install();
  const asked = [];
  page.on("request", (request) => request.url().includes("/retinker/v1/") && asked.push(request.url()));
  await page.goto(retinker.consoleUrl);
  await byTestId(page, "run-row").first().waitFor();
  await state(page, "live");
  const all = byTestId(page, "health-filter-poisoned");
  const poisoned = async () => Number((await all.innerText()).match(/\d+/)[0]);
  const before = await poisoned();

  await show(page, false);
  await state(page, "paused");
  // What was asked before it was hidden may still be on its way.
  await page.clock.runFor(1000);
  asked.length = 0;
  await service.poison(2);
  await page.clock.fastForward("01:00:00");
  assert.deepEqual(asked, [], "nothing is read while nobody looks");
  assert.equal(await poisoned(), before);

  await show(page, true);
  await state(page, "live");
  await page.clock.resume();
  await page.waitForFunction(
    (wanted) => document.querySelector('[data-testid="health-filter-poisoned"]').innerText.includes(wanted),
    String(before + 1),
  );
  assert.deepEqual(page.problems, []);
});

test("two tabs that act at once come to the same", async (t) => {
  const made = await scene(t);
  const browser = await openBrowser(t);
  const tabs = await Promise.all([1, 2].map(() => openPage(browser, made.retinker.consoleUrl)));
  for (const tab of tabs) {
    await tab.goto(new URL("/activity", made.retinker.consoleUrl).href);
    await byTestId(tab, "monitor-toggle").waitFor();
  }
  // Both say "pause": it is paused, and not resumed by the second.
  await Promise.all(tabs.map((tab) => byTestId(tab, "monitor-toggle").click()));
  for (const tab of tabs) await tab.locator('[data-testid="monitor"][data-gate="paused"]').waitFor();
  // What one does is seen in the other.
  await byTestId(tabs[0], "monitor-toggle").click();
  for (const tab of tabs) await tab.locator('[data-testid="monitor"][data-gate="open"]').waitFor();

  for (const tab of tabs) {
    await tab.goto(new URL(`/runs/${encodeURIComponent(made.poisoned)}`, made.retinker.consoleUrl).href);
    await byTestId(tab, "restore-button").click();
    await byTestId(tab, "plan-summary").waitFor();
  }
  await Promise.all(tabs.map((tab) => byTestId(tab, "confirm-restore").click()));
  const links = await Promise.all(tabs.map(async (tab) => {
    await byTestId(tab, "restored-link").first().waitFor();
    return byTestId(tab, "restored-link").first().getAttribute("href");
  }));
  assert.equal(links[0], links[1], "both show the one restore");
  for (const tab of tabs) assert.deepEqual(tab.problems, []);
});

test("a host that goes away is told, and what it said stays until it is back", async (t) => {
  const service = await Simulated.start(t, ["--runs", 150]);
  const [port, dir] = [await freePort(), await temporaryDir(t)];
  const args = ["console", "--base-url", service.url, "--port", `${port}`, "--data-dir", dir];
  const retinker = await Retinker.start(t, args);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "run-row").first().waitFor();
  const asleep = await page.context().newPage();
  await openConsole(asleep, retinker.consoleUrl);
  await retinker.kill();
  const banner = page.locator('[data-testid="banner-problem"][data-code="host_unreachable"]');
  await banner.first().waitFor({ timeout: 60_000 });
  await state(page, "broken");
  assert.ok((await byTestId(page, "run-row").count()) > 0, "the list stays");
  await picture(page, "host-gone");
  // Started again it has another token, which only the address that it prints brings.
  await asleep.route("**/retinker/v1/**", () => {});
  const again = await Retinker.start(t, args);
  await byTestId(page, "locked").waitFor({ timeout: 60_000 });
  // A tab that sleeps does not know of that, and gives the old one to whoever asks; one that is opened by a link asks all.
  const fresh = await page.context().newPage();
  await openConsole(fresh, again.consoleUrl);
  for (let tab = 0; tab < 6; tab += 1) {
    const opened = await page.context().newPage();
    await opened.goto(new URL("/activity", again.consoleUrl).href);
    await state(opened, "live");
    await opened.close();
  }
  // The one that was refused has heard of it as well.
  await state(page, "live");
  await byTestId(page, "run-row").first().waitFor();
});
