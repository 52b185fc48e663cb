// What a person does while the service misbehaves: nothing is told as done that is not, what is told says what to do,
// nothing stays busy, and the same succeeds from the same page once the service is well.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { faulty } from "./support/lost.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Service } from "./support/service.mjs";

/** Words by which each fault is told. */
const TOLD = {
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

/** What is to be acted on, made for one fault and called after it. */
async function prepare(service, fault, name) {
  const session = (what) => service.session({ display_name: `${what}, ${name}` });
  const save = async (run, number, path) =>
    (await service.call("save_weights", { model_id: run, seq_id: number, path })).path;
  const finished = await session("to be finished");
  await service.run(finished, 0, `stopped, ${name}`);
  const kept = await session("to be kept");
  const sound = await service.run(kept, 0, `sound, ${name}`);
  const published = await save(sound, 1, "published");
  const deleted = await save(sound, 2, "deleted");
  const planned = await service.run(kept, 1, `planned, ${name}`);
  const restored = await service.run(kept, 2, `restored, ${name}`);
  for (const lost of [planned, restored]) {
    await save(lost, 1, "saved");
    await fault("poison", { run_id: lost, reason: "a machine died" });
  }
  return { finished, sound, published, deleted, planned, restored };
}

const job = (page) => byTestId(page, "job");
const row = (page, path) => page.locator(`[data-testid="checkpoint-item"][data-path="${path}"]`);
/** The page's own banners with this button: "Try again" with what is read, "Close" with what was asked for. */
const banners = (page, name) =>
  page.locator("main > .banner").filter({ has: page.getByRole("button", { name, exact: true }) });
const told = async (all) => (await all.allInnerTexts()).join("\n");
const ofRun = (id) => `/runs/${encodeURIComponent(id)}`;
const ofCheckpoints = (made) => `/checkpoints?q=run:${encodeURIComponent(made.sound)}`;

/** Takes away what was told before, and opens a checkpoint. */
async function openCheckpoint(page, path) {
  await page.keyboard.press("Escape");
  await byTestId(page, "checkpoint-dialog").waitFor({ state: "hidden" });
  for (const old of [byTestId(page, "job-close"), banners(page, "Close").getByRole("button")]) {
    if (await old.isVisible()) await old.click();
  }
  await job(page).waitFor({ state: "detached" });
  await row(page, path).locator('[data-testid="more"]').click();
}

/** How what was begun with checkpoints has ended, in the page's words. */
async function ended(page, done) {
  await page.locator('[data-testid="job"][data-running="false"]').waitFor();
  const text = await told(job(page).or(banners(page, "Close")));
  return { done: done.test(await job(page).innerText()), text };
}

const restore = (page) => byTestId(page, "restore-dialog");
const newPlan = (page) => restore(page).getByRole("button", { name: "Make a new plan" });
const refusal = (page) => restore(page).locator('.banner, [data-testid="no-plan"]');
const planned = (page) => restore(page).locator('.plan[aria-busy="false"]').waitFor();

/**
 * Each act: the address `at` which it is done; `open` comes as far as one can before it is done; `press` does it, and
 * tells whether the page says that it was done, and all that it says; `isDone` asks the service itself.
 */
const ACTS = {
  "publish a checkpoint": {
    at: ofCheckpoints,
    open: (page, made) => openCheckpoint(page, made.published),
    async press(page) {
      await byTestId(page, "publish").click();
      return ended(page, /^1 checkpoint published\./);
    },
    isDone: async (made, known) => (await known.checkpoint(made.published)).public,
  },
  "delete a checkpoint": {
    at: ofCheckpoints,
    async open(page, made) {
      await openCheckpoint(page, made.deleted);
      await byTestId(page, "delete").click();
      await byTestId(page, "confirm-delete").or(byTestId(page, "preview-problem")).waitFor();
    },
    async press(page) {
      const problem = byTestId(page, "preview-problem");
      if (await problem.isVisible()) {
        const text = await problem.innerText();
        assert.match(text, /Nothing was deleted\./);
        return { done: false, text };
      }
      await byTestId(page, "confirm-delete").click();
      return ended(page, /^1 checkpoint deleted/);
    },
    isDone: async (made, known) => !(await known.checkpoint(made.deleted)),
  },
  "finish a session": {
    at: (made) => `/sessions/${made.finished}`,
    async open(page) {
      if (!(await byTestId(page, "confirm").isVisible())) await byTestId(page, "finish-session").click();
    },
    async press(page) {
      await byTestId(page, "confirm").click();
      const over = byTestId(page, "session-state").getByText("Finished");
      const problem = byTestId(page, "dialog-problem");
      await over.or(problem).first().waitFor();
      const text = await told(problem);
      if (text) assert.ok(await byTestId(page, "confirm").isEnabled(), "it can be asked for again");
      return { done: await over.isVisible(), text };
    },
    isDone: async (made, known) => (await known.session(made.finished)).status.type === "client_finished",
  },
  "plan a restore": {
    at: (made) => ofRun(made.planned),
    open: (page) => byTestId(page, "restore-button").or(newPlan(page)).first().waitFor(),
    async press(page) {
      await (await newPlan(page).isVisible() ? newPlan(page) : byTestId(page, "restore-button")).click();
      await planned(page);
      const done = await byTestId(page, "plan-summary").isVisible();
      assert.equal(await byTestId(page, "confirm-restore").isEnabled(), done, "what is planned can be confirmed");
      return { done, text: await told(refusal(page)) };
    },
    // A plan is the page's alone.
    isDone: null,
  },
  "confirm a plan": {
    at: (made) => ofRun(made.restored),
    async open(page) {
      const confirm = byTestId(page, "confirm-restore");
      if (!(await restore(page).isVisible())) await byTestId(page, "restore-button").click();
      else if (!(await confirm.isEnabled())) await newPlan(page).click();
      await planned(page);
    },
    async press(page) {
      const confirm = byTestId(page, "confirm-restore");
      const problem = refusal(page);
      // Without a new plan nothing can be confirmed; what the page says of that is what it says of the restore.
      if (await confirm.isEnabled()) await confirm.click();
      await byTestId(page, "restore-progress").or(problem).first().waitFor();
      const done = await byTestId(page, "restore-progress").isVisible();
      if (done) await byTestId(page, "restored-link").waitFor();
      if (!done) assert.ok(await confirm.isEnabled() || await newPlan(page).isEnabled(), "it can be asked for again");
      return { done, text: await told(problem) };
    },
    isDone: async (made, known) => (await known.successors(made.restored)).length === 1,
  },
};

const knows = (page, state) =>
  page.locator(`[data-testid="freshness"][data-state="${state}"]`).waitFor({ timeout: 60_000 });

/** Nothing but that the host has answered with a failure. */
const assertSound = (page) =>
  assert.deepEqual(page.problems.filter((problem) => !/Failed to load resource.*status of [45]/.test(problem)), []);

/** All acts, each in a tab of its own, on a console before which the service can misbehave. */
async function openAll(t, scene, name) {
  const made = await prepare(scene.service, scene.fault, name);
  const proxy = await Misbehaving.start(t, scene.service.baseUrl);
  const retinker = await proxy.console(t);
  const tabs = await Promise.all(Object.entries(ACTS).map(async ([name, act]) => {
    const page = await openPage(scene.browser, retinker.consoleUrl);
    await page.goto(new URL(act.at(made), retinker.consoleUrl).href);
    await act.open(page, made);
    return { name, act, page, made, texts: [] };
  }));
  return { proxy, tabs };
}

/** Does it, and compares what the page says with what the service knows. */
async function press({ act, page, made, texts }, known) {
  const { done, text } = await act.press(page);
  if (act.isDone) assert.equal(await act.isDone(made, known), done, `the page says what is true: ${text}`);
  if (!done) texts.push(text);
  assert.equal(await page.locator('main [aria-busy="true"], [data-running="true"]').count(), 0, "nothing stays busy");
  return { done, text };
}

/** Does this with all tabs at once; the first failure of each is kept, and ends what is done with it. */
const withAll = (tabs, act) =>
  Promise.all(tabs.filter((tab) => !tab.failed).map((tab) => act(tab).catch((error) => (tab.failed = error))));

function inWordsForPeople(texts) {
  for (const text of texts) {
    assert.match(text, ADVICE);
    assert.doesNotMatch(text, NOT_FOR_PEOPLE);
  }
}

test("what is asked for while the service misbehaves", { concurrency: 2 }, async (t) => {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const scene = { service, fault, browser: await openBrowser(t) };
  /** What the service itself knows, whatever stands before it. */
  const known = {
    async checkpoint(path) {
      const { checkpoints } = await retinker.service(`training_runs/${path.split("/")[2]}/checkpoints`);
      return checkpoints.find((one) => one.tinker_path === path);
    },
    session: async (id) => (await service.search({ session_id: id }))[0],
    async successors(id) {
      const { training_runs: runs } = await retinker.service("training_runs?limit=100");
      return runs.filter((run) => run.user_metadata?.["retinker.restored_from"] === id);
    },
  };
  const succeeds = async (tab) => {
    await knows(tab.page, "live");
    // What the page itself could not read is read again a moment later.
    await banners(tab.page, "Try again").first().waitFor({ state: "detached" });
    await tab.act.open(tab.page, tab.made);
    const { done, text } = await press(tab, known);
    assert.equal(done, true, `the service is well again: ${text}`);
  };

  async function misbehaves(t, name) {
    const { proxy, tabs } = await openAll(t, scene, name);
    // A host leaves a service alone that asks for patience (429): with all tabs at once that may take half a minute and more.
    for (const { page } of tabs) page.setDefaultTimeout(120_000);
    await proxy.misbehave(name);
    // At once, while the console takes the service for well.
    await withAll(tabs, async (tab) => {
      const { done, text } = await press(tab, known);
      assert.equal(done, false, text);
      assert.match(text, name === "404" ? new RegExp(`${TOLD[404].source}|${NOT_THERE.source}`) : TOLD[name]);
    });
    for (const [n, { page }] of tabs.entries()) await picture(page, `acting-${name}-${n}`);
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
    await withAll(tabs, succeeds);
    return tabs;
  }

  /** That it can be read at last, it is late to say; all else holds. */
  async function isSlow(t) {
    const { proxy, tabs } = await openAll(t, scene, "slow");
    for (const { page } of tabs) page.setDefaultTimeout(120_000);
    await proxy.misbehave("slow");
    const late = [];
    await withAll(tabs, async (tab) => {
      if (!(await press(tab, known)).done) late.push(tab);
    });
    for (const [n, { page }] of tabs.entries()) await picture(page, `acting-slow-${n}`);
    await proxy.misbehave(null);
    await withAll(late, succeeds);
    return tabs;
  }

  async function of(t, name, tabs) {
    for (const tab of tabs) {
      await t.test(tab.name, () => {
        if (tab.failed) throw tab.failed;
        assertSound(tab.page);
      });
    }
    await t.test("it is told in words for people", () => {
      inWordsForPeople(tabs.flatMap((tab) => tab.texts));
    });
    await Promise.all(tabs.map(({ page }) => page.context().close()));
  }

  // Beside the others, since it only waits.
  const slow = t.test("slow", async (t) => of(t, "slow", await isSlow(t)));
  for (const name of Object.keys(TOLD)) await t.test(name, async (t) => of(t, name, await misbehaves(t, name)));
  await slow;
});
