// What else a person does while the service misbehaves (`acting.test.mjs` has the acts on one thing): what is done with
// several at once, downloads, projects and samples. And what needs no service, which is done all the same.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import {
  assertSound, banners, ended, knownBy, knows, misbehaves, openActs, openCheckpoint, outcomes, putAway, row, told,
} from "./support/acting.mjs";
import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { faulty, restoreShown } from "./support/lost.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

/** One of each kind: no answer, one that makes no sense, one that asks for patience, one that refuses. Of the last two each
 * act meets one. */
const FAULTS = ["down", "malformed", "429", "500"];

const DAY = 86_400_000;

/** A run of this session with checkpoints of these names; its id, and their paths. */
async function saved(service, session, number, name, ...names) {
  const run = await service.run(session, number, name);
  const paths = [];
  for (const [at, path] of names.entries()) {
    paths.push((await service.call("save_weights", { model_id: run, seq_id: at + 1, path })).path);
  }
  return { run, paths };
}

/** Two runs that have lost their state, and can be restored. */
async function lost(service, fault, session, first, name) {
  const runs = [];
  for (const number of [first, first + 1]) {
    const { run } = await saved(service, session, number, `${name}-${number}`, "saved");
    await fault("poison", { run_id: run, reason: "a machine died" });
    runs.push(run);
  }
  return runs;
}

/** What is to be acted on, made for one fault and called after it. */
async function prepare(service, fault, name) {
  const moved = await service.session({ display_name: `to be moved, ${name}` });
  const kept = await service.session({ display_name: `to be kept, ${name}` });
  const names = ["one", "two", `copied-${name}`, "fetched"];
  const { run: sound, paths: [one, two, copied, fetched] } = await saved(service, kept, 0, `sound, ${name}`, ...names);
  const victims = await lost(service, fault, kept, 1, `lost-${name}`);
  return { name, moved, sound, several: [one, two], copied, fetched, lost: victims };
}

const ofCheckpoints = (made) => `/checkpoints?q=run:${encodeURIComponent(made.sound)}`;

const bulk = (page) => byTestId(page, "bulk-dialog");

/** Selects all that the list shows and asks for their plans; until it is known what can be restored, or why not. */
async function planSeveral(page) {
  await page.keyboard.press("Escape");
  await bulk(page).waitFor({ state: "hidden" });
  await byTestId(page, "run-row").nth(1).waitFor();
  await byTestId(page, "runs-scroller").focus();
  await page.keyboard.press("Control+a");
  await byTestId(page, "selected-count").getByText("2 runs selected").waitFor();
  await byTestId(page, "restore-selected").click();
  await page.locator('[data-testid="confirm-bulk"]:not([disabled])')
    .or(byTestId(page, "bulk-refused")).or(bulk(page).locator(".banner")).first().waitFor();
}

/** As in `acting.test.mjs`: `at`, `open`, `press` and `isDone`; `claims` is what would be untrue while it is not
 * done, and `spared` the fault that it is not tried with. */
const ACTS = {
  "restore several runs": {
    spared: "500",
    at: (made) => `/?q=${encodeURIComponent(`name:lost-${made.name}-`)}`,
    open: planSeveral,
    async press(page) {
      const confirm = byTestId(page, "confirm-bulk");
      if (!(await confirm.isEnabled())) {
        for (const summary of await bulk(page).locator("summary").all()) await summary.click();
        return { done: false, text: await bulk(page).innerText() };
      }
      await confirm.click();
      const progress = byTestId(page, "bulk-progress");
      await progress.getByText(/^Restored (2 of 2|0 of 2, 2 failed)$/).waitFor();
      return { done: (await progress.innerText()) === "Restored 2 of 2", text: await bulk(page).innerText() };
    },
    async isDone(made, known) {
      const counts = await Promise.all(made.lost.map(async (id) => (await known.successors(id)).length));
      assert.ok(counts.every((count) => count === counts[0] && count < 2), `each once, or none: ${counts}`);
      return counts[0] === 1;
    },
    // That it is not known what can be restored is not that nothing can.
    claims: /\d+ cannot\b/,
  },
  "give several checkpoints another life": {
    spared: "500",
    at: ofCheckpoints,
    async open(page, made) {
      await putAway(page);
      for (const path of made.several) await row(page, path).getByRole("checkbox").check();
      await byTestId(page, "selection").getByText("2 checkpoints selected").waitFor();
      await byTestId(page, "bulk-life").click();
      await byTestId(page, "life-from-now").check();
      await byTestId(page, "life-days").selectOption({ label: "30 days" });
    },
    async press(page) {
      await byTestId(page, "confirm-life").click();
      return ended(page, /^2 checkpoints given another life\./);
    },
    async isDone(made, known) {
      const all = await Promise.all(made.several.map((path) => known.checkpoint(path)));
      const days = all.map(({ expires_at: at }) => (at ? Math.round((Date.parse(at) - Date.now()) / DAY) : null));
      assert.ok(days.every((count) => count === days[0] && (count === null || count === 30)), `all or none: ${days}`);
      return days[0] === 30;
    },
  },
  "copy a checkpoint": {
    spared: "429",
    at: ofCheckpoints,
    open: (page, made) => openCheckpoint(page, made.copied),
    async press(page) {
      await byTestId(page, "copy").click();
      return ended(page, /^1 checkpoint copied\./);
    },
    isDone: async (made, known) => (await known.named(`copied-${made.name}`)).length === 2,
  },
  "download a checkpoint": {
    spared: "429",
    at: ofCheckpoints,
    open: (page, made) => openCheckpoint(page, made.fetched),
    async press(page, made) {
      const begun = page.waitForEvent("download").catch(() => null);
      await byTestId(page, "download").click();
      const problem = banners(page, "Close");
      const state = byTestId(page, "download-state");
      await problem.or(state).first().waitFor();
      if (await problem.isVisible()) {
        assert.equal(await state.count(), 0, "nothing is told as on its way");
        return { done: false, text: await told(problem) };
      }
      await page.locator('[data-testid="download-state"][data-state="done"]').waitFor();
      const got = await readFile(await (await begun).path());
      assert.ok(got.includes("adapter") && got.length > 10_000, `an archive: ${got.length} bytes of ${made.fetched}`);
      return { done: true, text: await state.innerText() };
    },
    isDone: null,
  },
  "move a session to a project": {
    spared: "429",
    at: (made) => `/sessions/${made.moved}`,
    async open(page) {
      if (await byTestId(page, "confirm").isVisible()) return;
      await byTestId(page, "assign-project").click();
      await byTestId(page, "project-id").fill("kitchen");
    },
    async press(page) {
      await byTestId(page, "confirm").click();
      const moved = byTestId(page, "session-facts").getByRole("link", { name: "kitchen" });
      const problem = byTestId(page, "dialog-problem");
      await moved.or(problem).first().waitFor();
      const text = await told(problem);
      if (text) {
        assert.ok(await byTestId(page, "confirm").isEnabled(), "it can be asked for again");
        assert.equal(await byTestId(page, "project-id").inputValue(), "kitchen", "what was written is kept");
        assert.equal(await byTestId(page, "assign-undo").count(), 0, "there is nothing to take back");
      }
      return { done: await moved.isVisible(), text };
    },
    isDone: async (made, known) => (await known.session(made.moved)).project_id === "kitchen",
  },
  "sample from a model": {
    spared: "500",
    at: () => "/try?path=retinker%2Fnano-llama",
    async open(page) {
      await byTestId(page, "try-prompt").fill("Tell me");
      await byTestId(page, "try-max-tokens").fill("8");
    },
    async press(page) {
      await byTestId(page, "try-run").click();
      await page.locator('[data-testid="try-result"]:is([data-state="done"], [data-state="failed"])').waitFor();
      const result = byTestId(page, "try-result");
      const done = (await result.getAttribute("data-state")) === "done";
      assert.equal(await byTestId(page, "sample-tokens").count(), done ? 1 : 0);
      assert.ok(await byTestId(page, "try-run").isEnabled(), "it can be asked for again");
      assert.equal(await byTestId(page, "try-prompt").inputValue(), "Tell me", "the prompt is kept");
      return { done, text: await result.innerText() };
    },
    // A sample is the page's alone.
    isDone: null,
  },
};

test("what is done with several, moved, fetched or tried while the service misbehaves", { concurrency: 2 }, async (t) => {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const scene = { service, browser: await openBrowser(t) };
  const known = knownBy(retinker, service);
  await Promise.all(FAULTS.map((name) =>
    t.test(name, async (t) => {
      const acts = Object.fromEntries(Object.entries(ACTS).filter(([, act]) => act.spared !== name));
      const { proxy, tabs } = await openActs(t, scene, acts, await prepare(service, fault, name));
      await misbehaves(tabs, proxy, known, name);
      await outcomes(t, tabs);
    })));
});

/** A service with two lost runs, and a console before which it can misbehave. */
async function incident(t) {
  const { retinker: up, fault } = await faulty(t);
  const service = new Service(up.serviceUrl);
  const victims = await lost(service, fault, await service.session(), 0, "lost-now");
  const proxy = await Misbehaving.start(t, up.serviceUrl);
  return { fault, victims, proxy, known: knownBy(up, service), retinker: await proxy.console(t) };
}

test("what the host does by itself is done while the service is away: handing over, pausing and resuming", async (t) => {
  const { proxy, victims: [victim], retinker } = await incident(t);
  const browser = await openBrowser(t);
  const [run, activity] = await Promise.all([1, 2].map(() => openPage(browser, retinker.consoleUrl)));
  await run.goto(new URL(`/runs/${encodeURIComponent(victim)}`, retinker.consoleUrl).href);
  await restoreShown(run);
  await byTestId(run, "hand-over-button").waitFor();
  await activity.goto(new URL("/activity", retinker.consoleUrl).href);
  await byTestId(activity, "monitor-toggle").waitFor();
  await proxy.misbehave("down");
  for (const page of [run, activity]) await knows(page, "stale");

  await byTestId(run, "hand-over-button").click();
  await byTestId(run, "session-owner").getByText(/Handed over\. retinker keeps the session alive until/).waitFor();
  assert.equal(await byTestId(run, "hand-over-button").count(), 0, "once is enough");
  const { body: { restores: [restore] } } = await retinker.host("restores");
  assert.equal(restore.state, "handed_over");
  const gate = async (wanted) => {
    await byTestId(activity, "monitor-toggle").click();
    await activity.locator(`[data-testid="monitor"][data-gate="${wanted}"]`).waitFor();
    assert.equal((await retinker.host("monitor")).body.gate, wanted);
  };
  await gate("paused");
  await picture(activity, "asked-paused-while-down");
  await gate("open");
  const ends = byTestId(activity, "restore-row").filter({ hasText: "Handed over." });
  await ends.waitFor();
  await byTestId(activity, "act").nth(1).waitFor();
  assert.deepEqual(
    await byTestId(activity, "act").locator("strong").allInnerTexts(),
    ["Resume automatic restores", "Pause automatic restores"],
  );
  await proxy.misbehave(null);
  for (const page of [run, activity]) await knows(page, "live");
  await byTestId(run, "session-owner").getByText(/Handed over\./).waitFor();
  await ends.waitFor();
  for (const page of [run, activity]) assertSound(page);
});

test("restores under way when the service goes away are neither failed nor done, and end when it is back", async (t) => {
  const { fault, proxy, victims, known, retinker } = await incident(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await planSeveral(page);
  // What is loaded waits, so that the service goes away in the midst of it.
  await fault("pause", { queue_state: "paused_capacity" });
  await byTestId(page, "confirm-bulk").click();
  const stands = (stand) =>
    page.waitForFunction((stand) => document.querySelectorAll(`[data-stand="${stand}"]`).length === 2, stand);
  await stands("under_way");
  await until("both to be loading", async () => {
    const { body } = await retinker.host("restores");
    return body.restores.length === 2 && body.restores.every((restore) => restore.state === "loading");
  });
  await proxy.misbehave("down");
  await knows(page, "stale");
  await stands("under_way");
  assert.equal(await byTestId(page, "bulk-progress").innerText(), "Restored 0 of 2");
  await picture(page, "asked-under-way-while-down");
  await proxy.misbehave(null);
  await fault("pause", undefined, "DELETE");
  await byTestId(page, "bulk-progress").getByText("Restored 2 of 2").waitFor({ timeout: 120_000 });
  for (const id of victims) assert.equal((await known.successors(id)).length, 1, "each once");
  assertSound(page);
});
