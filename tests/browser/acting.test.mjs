// What a person does while the service misbehaves: nothing is told as done that is not, what is told says what to do,
// nothing stays busy, and the same succeeds from the same page once the service is well.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  TOLD, ended, knownBy, misbehaves, openActs, openCheckpoint, outcomes, press, succeeds, told, withAll,
} from "./support/acting.mjs";
import { byTestId, openBrowser, picture } from "./support/browser.mjs";
import { faulty } from "./support/lost.mjs";
import { Service } from "./support/service.mjs";

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

const ofRun = (id) => `/runs/${encodeURIComponent(id)}`;
const ofCheckpoints = (made) => `/checkpoints?q=run:${encodeURIComponent(made.sound)}`;

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

test("what is asked for while the service misbehaves", { concurrency: 2 }, async (t) => {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const scene = { service, fault, browser: await openBrowser(t) };
  const known = knownBy(retinker, service);
  const open = async (t, name) => openActs(t, scene, ACTS, await prepare(service, fault, name));

  /** That it can be read at last, it is late to say; all else holds. */
  async function isSlow(t) {
    const { proxy, tabs } = await open(t, "slow");
    await proxy.misbehave("slow");
    const late = [];
    await withAll(tabs, async (tab) => {
      if ((await press(tab, known)).done) return;
      assert.notEqual(tab.name, "plan a restore", "which takes a few answers, and is worth waiting for");
      late.push(tab);
    });
    for (const [n, { page }] of tabs.entries()) await picture(page, `acting-slow-${n}`);
    await proxy.misbehave(null);
    await withAll(late, (tab) => succeeds(tab, known));
    return tabs;
  }

  // Beside the others, since it only waits.
  const slow = t.test("slow", async (t) => outcomes(t, await isSlow(t)));
  for (const name of Object.keys(TOLD)) {
    await t.test(name, async (t) => {
      const { proxy, tabs } = await open(t, name);
      await misbehaves(tabs, proxy, known, name);
      await outcomes(t, tabs);
    });
  }
  await slow;
});
