// What was done about lost runs, told on one page; and the language in which runs are looked for.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, openRun, picture, runRow } from "./support/browser.mjs";
import { Retinker, lastingUp } from "./support/retinker.mjs";
import { Training } from "./support/train.mjs";

/** A service with two poisoned runs, one of which never saved, and a sound one. */
async function lossOfTwo(t) {
  const args = await lastingUp(t);
  let retinker = await Retinker.start(t, args);
  const train = (name, rank, ...more) => Training.create(t, retinker.serviceUrl, { name, rank }, ...more);
  await train("sound", "8", "--steps", "4", "--save-every", "4").finish();
  const victims = [
    train("saved", "4", "--steps", "2000", "--save-every", "4"),
    train("never saved", "4", "--steps", "2000"),
  ];
  await Promise.all(victims.map((victim) => victim.steps(6).then(() => victim.pause())));
  await retinker.kill("SIGKILL");
  victims.forEach((victim) => victim.stop());
  retinker = await Retinker.start(t, args);
  const [saved, never] = victims.map((victim) => victim.attachment.model_id);
  return { retinker, saved, never };
}

/** Types into a list's filter, and waits until the list of what may follow begins so: texts, and what is said of each where that
 * is not `null`. */
async function offersIn(page, list, typed, offered) {
  await byTestId(page, `${list}-search`).fill(typed);
  await page.waitForFunction(
    ({ list, offered }) => {
      const options = [...document.querySelectorAll(`[data-testid="${list}-completions"] option`)];
      const fits = ([text, said], at) => options[at]?.value === text && (said === null || options[at].textContent === said);
      return offered.every(fits);
    },
    { list, offered },
  );
}

test("runs are looked for by words and fields, and what makes no sense is told", async (t) => {
  const { retinker, saved, never } = await lossOfTwo(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await runRow(page, saved, "poisoned").waitFor();
  await runRow(page, never, "unrecoverable").waitFor();
  const search = byTestId(page, "runs-search");
  const shows = async (text, count) => {
    await search.fill(text);
    await page.waitForFunction(
      (wanted) => document.querySelectorAll('[data-testid="run-row"]').length === wanted,
      count,
    );
  };
  await shows("rank>=8", 1);
  await shows("health:poisoned,unrecoverable", 2);
  assert.match(page.url(), /q=health/, "the address holds it");
  await shows("-health:healthy name:never", 1);
  await shows('meta.name="never saved" age<1h', 1);
  await shows("age>1h", 0);
  await picture(page, "runs-no-match");
  await shows("team=x health:poisoned", 0);
  await byTestId(page, "runs-no-match").getByText("There is no field “team”").waitFor();
  await shows("", 3);

  // The fields, and what the runs of this service have in them, each with how many have it.
  const offers = (typed, ...offered) => offersIn(page, "runs", typed, offered);
  await offers("", ["health:", null], ["model:", null]);
  await offers("health:po", ["health:poisoned", ""]);
  await offers("sound he", ["sound health:", null]);
  await offers("model:", ["model:retinker/nano-llama", "3 runs"]);
  await offers("-rank>=", ["-rank>=4", "2 runs"], ["-rank>=8", "1 run"]);
  await offers("meta.n", ["meta.name=", "3 runs"]);
  await offers("age<1h meta.name=nev", ['age<1h meta.name="never saved"', "1 run"]);
  await shows('age<1h meta.name="never saved"', 1);

  await shows("", 3);
  await search.fill("rank>=many");
  const banner = page.locator('[data-testid="banner-problem"][data-code="bad_query"]');
  await banner.waitFor();
  assert.match(await banner.innerText(), /'rank>=many' makes no sense: rank takes a number/);
  assert.equal(await page.locator('[data-testid="run-row"]').count() > 0, true, "the list stays");
  await picture(page, "runs-bad-query");
  await search.fill("rank>=4");
  await banner.waitFor({ state: "detached" });
  // Key by key, slower than the page waits: what is still being written neither empties the list nor is complained of.
  await search.fill("health:");
  for (const key of "poi") {
    await page.waitForFunction(() => document.querySelectorAll('[data-testid="run-row"]').length > 0);
    await search.press(key);
    await page.waitForFunction((text) => decodeURIComponent(location.search).includes(text), await search.inputValue());
    assert.equal(await banner.count(), 0);
  }
  await page.waitForFunction(() => document.querySelectorAll('[data-testid="run-row"]').length === 1);

  await page.goto(new URL("/checkpoints", retinker.consoleUrl).href);
  await byTestId(page, "checkpoint-item").first().waitFor();
  await offersIn(page, "checkpoints", "ty", [["type:", null]]);
  await offersIn(page, "checkpoints", "type:s", [["type:sampler", ""]]);
  await offersIn(page, "checkpoints", "age<1h run:sou", [["age<1h run:sound", null]]);
});

test("incidents and restores are told, restores are paused and resumed, and all of it can be saved", async (t) => {
  const { retinker, saved } = await lossOfTwo(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await runRow(page, saved, "poisoned").waitFor();
  await page.getByRole("link", { name: "Activity" }).click();
  await byTestId(page, "incident").filter({ hasText: "2 runs" }).waitFor();
  assert.equal(await page.title(), "Activity · retinker");
  const incident = await byTestId(page, "incident").innerText();
  assert.match(incident, /2 runs lost their state together/);
  assert.match(incident, /1 had a checkpoint to restore from, 1 had none/);
  assert.match(await byTestId(page, "no-restores").innerText(), /Nothing has been restored/);
  await picture(page, "activity-before");

  const monitor = byTestId(page, "monitor");
  assert.equal(await monitor.getAttribute("data-gate"), "open");
  assert.match(await monitor.innerText(), /wait for you/);
  await byTestId(page, "monitor-toggle").click();
  await page.locator('[data-testid="monitor"][data-gate="paused"]').waitFor();
  await page.reload();
  await page.locator('[data-testid="monitor"][data-gate="paused"]').waitFor();
  await byTestId(page, "monitor-toggle").click();
  await page.locator('[data-testid="monitor"][data-gate="open"]').waitFor();

  await openRun(page, saved, "poisoned");
  await byTestId(page, "restore-button").click();
  await byTestId(page, "confirm-restore").click();
  await byTestId(page, "restored-link").waitFor();
  await page.goto(new URL("/activity", retinker.consoleUrl).href);
  const row = page.locator('[data-testid="restore-row"][data-state="adopted"]');
  await row.waitFor();
  assert.match(await row.innerText(), /Adopted\. Not verified/, "nothing passes in silence");
  const plan = row.locator("details");
  assert.match(await plan.innerText(), /Plan and steps, asked for by the console/);
  await plan.locator("summary").click();
  assert.match(await plan.innerText(), /With the optimizer's state\./);
  assert.match(await plan.innerText(), /\d\d:\d\d:\d\d Asked for by the console.*: restore run/);
  const acts = byTestId(page, "act");
  assert.deepEqual(
    await acts.locator("strong").allInnerTexts(),
    ["Resume automatic restores", "Pause automatic restores"],
  );
  assert.match(await acts.first().innerText(), /by the console/);
  await picture(page, "activity");
  const [download] = await Promise.all([page.waitForEvent("download"), byTestId(page, "activity-export").click()]);
  const all = JSON.parse(await readFile(await download.path(), "utf8"));
  assert.equal(all.restores[0].plan.run_id, saved);
  assert.equal(all.incidents[0].run_ids.length, 2);
  assert.equal(all.monitor.gate, "open");
  assert.equal(all.acts.length, 2);
  assert.match(all.restores[0].asked_by, /^the console/);

  await page.setViewportSize({ width: 380, height: 800 });
  await picture(page, "activity-narrow");
  const wider = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  assert.equal(wider, false, "nothing is cut off on a narrow screen");
  assert.deepEqual(page.problems, []);
});
