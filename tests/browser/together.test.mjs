// Two tabs that act at once, on the same checkpoint or the same session: what each says is what the service knows,
// whoever came first, and both show the same in the end.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertSound, ended, job, knownBy, openCheckpoint, row } from "./support/acting.mjs";
import { byTestId, holdBack, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Retinker } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

/** A service, and two tabs of its console in one browser. */
async function start(t) {
  const retinker = await Retinker.up(t);
  const service = new Service(retinker.serviceUrl);
  const browser = await openBrowser(t);
  const tabs = await Promise.all([1, 2].map(() => openPage(browser, retinker.consoleUrl)));
  return { retinker, service, known: knownBy(retinker, service), tabs };
}

/** Shows this address in both. */
const show = (tabs, retinker, path) =>
  Promise.all(tabs.map((tab) => tab.goto(new URL(path, retinker.consoleUrl).href)));

test("two tabs that act at once on the same checkpoint", async (t) => {
  const { retinker, service, known, tabs } = await start(t);
  const run = await service.run(await service.session(), 0, "of both");
  const paths = [];
  for (const [at, path] of ["twice", "first", "late", "early"].entries()) {
    paths.push((await service.call("save_weights", { model_id: run, seq_id: at + 1, path })).path);
  }
  const [twice, first, late, early] = paths;
  await show(tabs, retinker, "/checkpoints");
  for (const tab of tabs) for (const path of paths) await row(tab, path).waitFor();
  const [one, other] = tabs;
  const askToDelete = async (tab, path) => {
    await openCheckpoint(tab, path);
    await byTestId(tab, "delete").click();
    await byTestId(tab, "confirm-delete").waitFor();
  };
  const confirm = (tab) => byTestId(tab, "confirm-delete").click();
  const gone = async (path) => {
    assert.equal(await known.checkpoint(path), undefined);
    for (const tab of tabs) await row(tab, path).waitFor({ state: "detached" });
  };

  await t.test("both delete it: both say that it is deleted", async () => {
    for (const tab of tabs) await askToDelete(tab, twice);
    await Promise.all(tabs.map(confirm));
    const texts = [];
    for (const tab of tabs) {
      const { done, text } = await ended(tab, /^1 checkpoint deleted/);
      assert.ok(done, text);
      texts.push(text);
    }
    // A service may take two that come at the same moment for one; who comes later is told so (`checkpoints.test.mjs`).
    assert.ok(texts.filter((text) => /gone already/.test(text)).length <= 1, texts.join("\n"));
    await gone(twice);
  });

  await t.test("one publishes what the other deletes: each says what became of it", async () => {
    await openCheckpoint(one, first);
    await askToDelete(other, first);
    await Promise.all([byTestId(one, "publish").click(), confirm(other)]);
    // Whoever comes first: what was published before it was deleted was published.
    const published = await ended(one, /^1 checkpoint published\./);
    const deleted = await ended(other, /^1 checkpoint deleted\./);
    assert.ok(deleted.done, deleted.text);
    if (!published.done) assert.match(published.text, /^0 of 1 checkpoint published\./);
    await gone(first);
  });

  await t.test("what is gone by then is not told as published, or as given another life", async () => {
    await openCheckpoint(one, late);
    const go = await holdBack(one, "**/retinker/v1/checkpoints/actions");
    await byTestId(one, "publish").click();
    await askToDelete(other, late);
    await confirm(other);
    await ended(other, /^1 checkpoint deleted\./);
    go();
    const { done, text } = await ended(one, /^1 checkpoint published\./);
    assert.equal(done, false, text);
    assert.match(text, /^0 of 1 checkpoint published\./);
    const failures = await byTestId(one, "job-failures").innerText();
    assert.match(failures, new RegExp(`${late}[^]*(does not|no such|not any more|gone)`, "i"));
    assert.equal(await byTestId(one, "undo").count(), 0, "there is nothing to take back");
    await picture(one, "together-published-too-late");
    await gone(late);
  });

  await t.test("what was published between the preview and the confirmation is deleted as it was shown", async () => {
    await askToDelete(other, early);
    await openCheckpoint(one, early);
    await byTestId(one, "publish").click();
    assert.ok((await ended(one, /^1 checkpoint published\./)).done);
    assert.equal((await known.checkpoint(early)).public, true);
    await confirm(other);
    assert.ok((await ended(other, /^1 checkpoint deleted\./)).done);
    await gone(early);
    // What cannot be undone any more says so, where its way back was offered before.
    await byTestId(one, "undo").click();
    const { done, text } = await ended(one, /^1 checkpoint made private\./);
    assert.equal(done, false, text);
    await job(one).getByText(/^0 of 1 checkpoint made private\./).waitFor();
  });
  tabs.forEach(assertSound);
});

test("two tabs that act at once on the same session", async (t) => {
  const { retinker, service, known, tabs } = await start(t);
  const facts = (tab) => byTestId(tab, "session-facts");
  const open = async (session) => {
    await show(tabs, retinker, `/sessions/${session}`);
    for (const tab of tabs) await byTestId(tab, "session-runs").waitFor();
  };
  const make = async (name) => {
    const session = await service.session({ display_name: name });
    await service.run(session, 0, `run of ${name}`);
    return session;
  };

  await t.test("both move it to another project: both show where it is, and each offers the way back", async () => {
    const session = await make("moved twice");
    await open(session);
    const projects = ["kitchen", "garden"];
    for (const [at, tab] of tabs.entries()) {
      await byTestId(tab, "assign-project").click();
      await byTestId(tab, "project-id").fill(projects[at]);
    }
    await Promise.all(tabs.map((tab) => byTestId(tab, "confirm").click()));
    for (const tab of tabs) await byTestId(tab, "session-dialog").waitFor({ state: "hidden" });
    const { project_id: where } = await known.session(session);
    assert.ok(projects.includes(where), where);
    // The one that came first learns it a while later.
    for (const tab of tabs) await facts(tab).getByRole("link", { name: where }).waitFor();
    for (const tab of tabs) await byTestId(tab, "assign-undo").getByText(/^Undo: back to /).waitFor();
    await picture(tabs[0], "together-moved");
    const [one] = tabs;
    const back = (await byTestId(one, "assign-undo").innerText()).replace("Undo: back to ", "");
    await byTestId(one, "assign-undo").click();
    await facts(one).getByRole("link", { name: back }).waitFor();
    assert.equal((await known.session(session)).project_id, back);
  });

  await t.test("both finish it, each for another reason: the first counts, and both say so", async () => {
    const session = await make("finished twice");
    await open(session);
    for (const [at, tab] of tabs.entries()) {
      await byTestId(tab, "finish-session").click();
      await byTestId(tab, "finish-reason").selectOption(["success", "errored"][at]);
    }
    await Promise.all(tabs.map((tab) => byTestId(tab, "confirm").click()));
    for (const tab of tabs) await byTestId(tab, "session-dialog").waitFor({ state: "hidden" });
    const { status } = await known.session(session);
    assert.equal(status.type, "client_finished");
    const words = { success: /it did what it was for/, errored: /its program met an error/ }[status.reason.type];
    for (const tab of tabs) {
      const state = byTestId(tab, "session-state");
      await state.getByText("Finished").waitFor();
      await state.getByText(words).waitFor();
      assert.equal(await byTestId(tab, "finish-session").count(), 0);
    }
    await picture(tabs[1], "together-finished");
  });

  await t.test("one moves what the other finishes: both are done, and both tabs show both", async () => {
    const session = await make("moved and finished");
    await open(session);
    const [one, other] = tabs;
    await byTestId(one, "assign-project").click();
    await byTestId(one, "project-id").fill("kitchen");
    await byTestId(other, "finish-session").click();
    await Promise.all(tabs.map((tab) => byTestId(tab, "confirm").click()));
    for (const tab of tabs) {
      await byTestId(tab, "session-dialog").waitFor({ state: "hidden" });
      await byTestId(tab, "session-state").getByText("Finished").waitFor();
      await facts(tab).getByRole("link", { name: "kitchen" }).waitFor();
    }
    const { status, project_id: where } = await known.session(session);
    assert.deepEqual([status.type, where], ["client_finished", "kitchen"]);
  });
  tabs.forEach(assertSound);
});
