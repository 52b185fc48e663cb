// What a person does while the service misbehaves: what the page says of it is held against what the service knows.
import assert from "node:assert/strict";

import { byTestId, openPage, picture } from "./browser.mjs";
import { Misbehaving } from "./misbehaving.mjs";

/** Words by which each fault is told. */
export const TOLD = {
  down: /cannot be reached|does not answer/,
  401: /401/,
  402: /402/,
  403: /403/,
  404: /404/,
  429: /429/,
  500: /500/,
  malformed: /cannot be read/,
};

/** That a thing is not there, as a service says of everything that is not itself. */
const NOT_THERE = /has no (run|session)|does not exist/;

/** What a person can do about it. */
const ADVICE = /try again|asked again|check the|make a new plan|(is|are) its? .*right\?/i;

/** What is for programs, and for those who write them. */
const NOT_FOR_PEOPLE = /[{}]|":|::|panicked|backtrace|undefined|Error\(|\.rs\b/;

export const job = (page) => byTestId(page, "job");
export const row = (page, path) => page.locator(`[data-testid="checkpoint-item"][data-path="${path}"]`);
/** The page's own banners with this button: "Try again" with what is read, "Close" with what was asked for. */
export const banners = (page, name) =>
  page.locator("main > .banner").filter({ has: page.getByRole("button", { name, exact: true }) });
export const told = async (all) => (await all.allInnerTexts()).join("\n");

/** Takes away what was told before about checkpoints. */
export async function putAway(page) {
  await page.keyboard.press("Escape");
  await byTestId(page, "checkpoint-dialog").waitFor({ state: "hidden" });
  for (const old of [byTestId(page, "job-close"), banners(page, "Close").getByRole("button")]) {
    if (await old.isVisible()) await old.click();
  }
  await job(page).waitFor({ state: "detached" });
}

/** Takes away what was told before, and opens a checkpoint. */
export async function openCheckpoint(page, path) {
  await putAway(page);
  await row(page, path).locator('[data-testid="more"]').click();
}

/** How what was begun with checkpoints has ended, in the page's words. */
export async function ended(page, done) {
  await page.locator('[data-testid="job"][data-running="false"]').waitFor();
  const text = await told(job(page).or(banners(page, "Close")));
  return { done: done.test(await job(page).innerText()), text };
}

/** What the service itself knows, whatever stands before it. */
export const knownBy = (retinker, service) => ({
  async checkpoint(path) {
    const { checkpoints } = await retinker.service(`training_runs/${path.split("/")[2]}/checkpoints`);
    return checkpoints.find((one) => one.tinker_path === path);
  },
  /** All checkpoints of this name, whatever run they are of. */
  async named(name) {
    const { checkpoints } = await retinker.service("checkpoints?limit=500");
    return checkpoints.filter((one) => one.tinker_path.endsWith(`/${name}`));
  },
  session: async (id) => (await service.search({ session_id: id }))[0],
  async successors(id) {
    const { training_runs: runs } = await retinker.service("training_runs?limit=100");
    return runs.filter((run) => run.user_metadata?.["retinker.restored_from"] === id);
  },
});

export const knows = (page, state) =>
  page.locator(`[data-testid="freshness"][data-state="${state}"]`).waitFor({ timeout: 60_000 });

/** Nothing but that the host has answered with a failure. */
export const assertSound = (page) =>
  assert.deepEqual(page.problems.filter((problem) => !/Failed to load resource.*status of [45]/.test(problem)), []);

/** All of these acts, each in a tab of its own, on a console before which the service can misbehave. */
export async function openActs(t, { service, browser }, acts, made) {
  const proxy = await Misbehaving.start(t, service.baseUrl);
  const retinker = await proxy.console(t);
  const tabs = await Promise.all(Object.entries(acts).map(async ([name, act]) => {
    const page = await openPage(browser, retinker.consoleUrl);
    await page.goto(new URL(act.at(made), retinker.consoleUrl).href);
    await act.open(page, made);
    // A host leaves a service alone that asks for patience (429): with all tabs at once that may take half a minute.
    page.setDefaultTimeout(120_000);
    return { name, act, page, made, texts: [] };
  }));
  return { proxy, retinker, tabs };
}

/** Does it, and compares what the page says with what the service knows. */
export async function press({ act, page, made, texts }, known) {
  const { done, text } = await act.press(page, made);
  if (act.isDone) assert.equal(await act.isDone(made, known), done, `the page says what is true: ${text}`);
  if (!done) texts.push(text);
  assert.equal(await page.locator('main [aria-busy="true"], [data-running="true"]').count(), 0, "nothing stays busy");
  return { done, text };
}

/** Does this with all tabs at once; the first failure of each is kept, and ends what is done with it. */
export const withAll = (tabs, act) =>
  Promise.all(tabs.filter((tab) => !tab.failed).map((tab) => act(tab).catch((error) => (tab.failed = error))));

/** That it is done now that the service is well. */
export async function succeeds(tab, known) {
  await knows(tab.page, "live");
  // What the page itself could not read is read again a moment later.
  await banners(tab.page, "Try again").first().waitFor({ state: "detached" });
  await tab.act.open(tab.page, tab.made);
  const { done, text } = await press(tab, known);
  assert.equal(done, true, `the service is well again: ${text}`);
}

/** Does all of it while the service misbehaves so, and again when it is well. */
export async function misbehaves(tabs, proxy, known, name) {
  await proxy.misbehave(name);
  // At once, while the console takes the service for well.
  await withAll(tabs, async (tab) => {
    const { done, text } = await press(tab, known);
    assert.equal(done, false, text);
    assert.match(text, name === "404" ? new RegExp(`${TOLD[404].source}|${NOT_THERE.source}`) : TOLD[name]);
  });
  for (const { page, name: what } of tabs) await picture(page, `acting-${name}-${what}`.replaceAll(" ", "-"));
  // And once more when it knows better: what such a service has not, may be there.
  await withAll(tabs, async (tab) => {
    await knows(tab.page, "stale");
    await tab.act.open(tab.page, tab.made);
    const { done, text } = await press(tab, known);
    assert.equal(done, false, text);
    assert.match(text, TOLD[name]);
    assert.doesNotMatch(text, NOT_THERE);
  });
  await proxy.misbehave(null);
  await withAll(tabs, (tab) => succeeds(tab, known));
}

function inWordsForPeople(texts) {
  for (const text of texts) {
    assert.match(text, ADVICE);
    assert.doesNotMatch(text, NOT_FOR_PEOPLE);
  }
}

/** What became of each tab, as tests of their own. */
export async function outcomes(t, tabs) {
  for (const tab of tabs) {
    await t.test(tab.name, () => {
      if (tab.failed) throw tab.failed;
      assertSound(tab.page);
    });
  }
  for (const tab of tabs) {
    await t.test(`${tab.name}: it is told in words for people`, () => inWordsForPeople(tab.texts));
  }
  for (const { name, act, texts } of tabs.filter(({ act }) => act.claims)) {
    await t.test(`${name}: what is not known is not told`, () => {
      for (const text of texts) assert.doesNotMatch(text, act.claims);
    });
  }
  await Promise.all(tabs.map(({ page }) => page.context().close()));
}
