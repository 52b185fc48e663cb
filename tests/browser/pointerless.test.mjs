// What else can be done in the console, done without a pointer; `keys.test.mjs` has what people do most. Nothing in
// this file moves or clicks one, and whatever was done, the keyboard is on something afterwards from which it goes on.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { assertOn, assertSomewhere, escape, goTo, isOn, named, press, tabTo } from "./support/keyboard.mjs";
import { faulty, held, pageOf } from "./support/lost.mjs";
import { Retinker, until } from "./support/retinker.mjs";
import { Service, batchOf } from "./support/service.mjs";
import { Simulated, consoleOn } from "./support/simulated.mjs";

// What is disabled has the keyboard for one more frame only.
const IN_DIALOG = "dialog[open], dialog[open] :not(:disabled)";
const { batch: BATCH } = batchOf("To be, or not to be");

/** A run of this session that has taken so many steps, and saved after each; its id and its checkpoints' paths. */
async function trained(service, session, number, name, steps) {
  const run = await service.run(session, number, name);
  const paths = [];
  let asked = 0;
  const ask = (path, body) => service.call(path, { model_id: run, seq_id: ++asked, ...body });
  for (let step = 1; step <= steps; step += 1) {
    await ask("forward_backward", { forward_backward_input: { data: [BATCH], loss_fn: "cross_entropy" } });
    await ask("optim_step", { adam_params: { learning_rate: 0.01 } });
    paths.push((await ask("save_weights", { path: `step-${step}` })).path);
  }
  return { run, paths };
}

/** Opens a menu, until this is in it: what is in a menu is drawn when it has opened. */
async function openMenu(page, menu, there) {
  await press(page, named(menu));
  await page.locator(there).first().waitFor();
}

/** Goes back by Tab until the keyboard is on one of these: forth would leave a menu, and so close it. */
async function tabBackTo(page, selector) {
  for (let n = 0; n < 60; n += 1) {
    if (await isOn(page, selector)) return;
    await page.keyboard.press("Shift+Tab");
  }
  assert.fail(`Shift+Tab does not come to ${selector}`);
}

test("runs that failed together are restored from their banner, to the end", async (t) => {
  const { page, victims, states, goOn } = await held(t, 3);
  await byTestId(page, "incident-banner").waitFor();
  await press(page, named("plan-all"));
  await byTestId(page, "bulk-outlook").getByText("All 3 can be restored.").waitFor();
  await assertOn(page, IN_DIALOG);
  await press(page, named("confirm-bulk"));
  await page.locator('[data-testid="bulk-item"][data-stand="under_way"]').nth(2).waitFor();
  await t.test("the keyboard is in the dialog when the restores have begun", () => assertOn(page, IN_DIALOG));

  // They go on behind the page, and the header leads back to them.
  await escape(page);
  await byTestId(page, "bulk-chip").waitFor();
  await t.test("the keyboard is on the page when the dialog is closed", () => assertSomewhere(page));
  await press(page, named("bulk-chip"));
  await page.locator('[data-testid="bulk-item"][data-stand="under_way"]').nth(2).waitFor();
  await assertOn(page, IN_DIALOG);
  // One is cancelled, and of the others no more are begun.
  await press(page, `${named("bulk-item")} button`);
  await page.locator('[data-testid="bulk-item"][data-stand="cancelled"]').waitFor();
  await t.test("the keyboard is in the dialog when one is cancelled", () => assertOn(page, IN_DIALOG));
  await press(page, named("bulk-stop"));
  await byTestId(page, "bulk-stop").getByText("Stopping").waitFor();
  await t.test("the keyboard is in the dialog when no more are begun", () => assertOn(page, IN_DIALOG));
  await goOn();
  await byTestId(page, "bulk-progress").getByText("Restored 2 of 3, 1 cancelled").waitFor();
  assert.deepEqual(await states(), ["adopted", "adopted", "cancelled"]);
  await t.test("the keyboard is in the dialog when they have ended", () => assertOn(page, IN_DIALOG));
  await picture(page, "pointerless-restored");

  // From there to a new run: its page is what is shown, and where the keyboard is.
  await press(page, `${named("bulk-item")} a`);
  await page.waitForURL(/\/runs\//);
  assert.equal(victims.some((id) => page.url().includes(encodeURIComponent(id))), false, "it is the new one");
  await byTestId(page, "restored-from-link").waitFor();
  await t.test("the dialog is closed when one goes on from it", async () => {
    await page.waitForFunction(() => !document.querySelector("dialog[open]"), null, { timeout: 3000 });
    await assertOn(page, "#page-title");
  });
  assert.deepEqual(page.problems, []);
});

test("a checkpoint is published, given another life, and both are taken back", async (t) => {
  const { retinker } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const { paths } = await trained(service, await service.session(), 0, "of one", 1);
  const now = async () => {
    const { checkpoints } = await retinker.service("checkpoints?limit=100");
    return checkpoints.find((one) => one.tinker_path === paths[0]);
  };
  const days = async () => {
    const { expires_at: at } = await now();
    return at ? Math.round((Date.parse(at) - Date.now()) / 86_400_000) : null;
  };
  const page = await pageOf(t, retinker);
  const job = (text) => page.locator('[data-testid="job"][data-running="false"]').getByText(text).waitFor();
  await goTo(page, "Checkpoints");
  await byTestId(page, "checkpoint-item").waitFor();

  await press(page, named("more"));
  await press(page, named("publish"));
  await job("1 checkpoint published.");
  assert.equal((await now()).public, true);
  await t.test("the keyboard is on something when it is published", () => assertSomewhere(page));
  await press(page, named("undo"));
  await job("1 checkpoint made private.");
  assert.equal((await now()).public, false);
  await t.test("the keyboard is on something when that is taken back", () => assertSomewhere(page));

  assert.equal(await days(), null);
  await press(page, named("more"));
  await press(page, named("life"));
  await byTestId(page, "confirm-life").waitFor();
  await assertOn(page, IN_DIALOG);
  await tabTo(page, named("life-extend"));
  await page.keyboard.press("ArrowDown");
  assert.equal(await byTestId(page, "life-from-now").isChecked(), true);
  await tabTo(page, named("life-days"));
  await page.keyboard.type("30");
  await picture(page, "pointerless-life");
  await press(page, named("confirm-life"));
  await job("1 checkpoint given another life.");
  assert.equal(await days(), 30);
  await t.test("the keyboard is on something when it has another life", () => assertSomewhere(page));
  await press(page, named("undo"));
  await job("1 checkpoint given their former life.");
  assert.equal(await days(), null);
  await t.test("the keyboard is on something when it has its former one", () => assertSomewhere(page));
  assert.deepEqual(page.problems, []);
});

test("a rule shows what would go and deletes it, and what is left is downloaded", async (t) => {
  const { retinker } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const { paths } = await trained(service, await service.session(), 0, "of three", 3);
  const left = async () => (await retinker.service("checkpoints?limit=100")).checkpoints.map((one) => one.tinker_path);
  const page = await pageOf(t, retinker);
  await goTo(page, "Checkpoints");
  await byTestId(page, "checkpoint-item").nth(2).waitFor();

  await press(page, named("retention-button"));
  await byTestId(page, "preview-retention").waitFor();
  await assertOn(page, IN_DIALOG);
  await tabTo(page, named("keep-last"));
  await page.keyboard.press("Control+a");
  await page.keyboard.type("1");
  await press(page, named("preview-retention"));
  await byTestId(page, "preview-told").getByText("2 checkpoints go").waitFor();
  await t.test("the keyboard is in the dialog when it is shown what would go", () => assertOn(page, IN_DIALOG));
  // A long list is scrolled from the keyboard.
  await tabTo(page, named("goes"));
  await picture(page, "pointerless-rule");
  assert.equal((await left()).length, 3, "nothing was done yet");
  await press(page, named("confirm-delete"));
  await page.locator('[data-testid="job"][data-running="false"]').getByText("2 checkpoints deleted.").waitFor();
  assert.deepEqual(await left(), paths.slice(2));
  await t.test("the keyboard is on something when they are gone", () => assertSomewhere(page));

  await press(page, named("more"));
  await tabTo(page, named("download"));
  const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  await page.locator('[data-testid="download-state"][data-state="done"]').waitFor();
  const [run, rest] = paths[2].replace("tinker://", "").split(/\/(.*)/);
  const own = await fetch(`${retinker.serviceUrl}/api/v1/training_runs/${run}/checkpoints/${rest}/archive`, {
    headers: { "x-api-key": "tml-test" },
  });
  assert.ok((await readFile(await download.path())).equals(Buffer.from(await own.arrayBuffer())), "all of it has come");
  await t.test("the keyboard is on something when it was downloaded", () => assertSomewhere(page));
  await press(page, named("download-close"));
  await byTestId(page, "download-state").waitFor({ state: "detached" });
  await t.test("the keyboard is on something when that is put away", () => assertSomewhere(page));
  assert.deepEqual(page.problems, []);
});

test("restores are paused and resumed, and a restored run is handed over with its code", async (t) => {
  const { retinker, fault } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const { run } = await trained(service, await service.session(), 0, "to be handed over", 1);
  await fault("poison", { run_id: run, reason: "a machine died" });
  const page = await pageOf(t, retinker, { permissions: ["clipboard-read", "clipboard-write"] });
  await byTestId(page, "run-row").waitFor();
  const gate = async () => (await retinker.host("activity")).body.monitor.gate;
  const shows = (gate) => page.locator(`[data-testid="monitor"][data-gate="${gate}"]`).waitFor();

  await goTo(page, "Activity");
  await shows("open");
  await press(page, named("monitor-toggle"));
  await shows("paused");
  assert.equal(await gate(), "paused");
  await assertOn(page, named("monitor-toggle"));
  await page.keyboard.press("Enter");
  await shows("open");
  assert.equal(await gate(), "open");
  await assertOn(page, named("monitor-toggle"));

  await goTo(page, "to be handed over");
  await press(page, named("restore-button"));
  await byTestId(page, "plan-summary").waitFor();
  await press(page, named("confirm-restore"));
  await byTestId(page, "restored-link").waitFor();
  await press(page, named("restored-link"));
  await byTestId(page, "hand-over-panel").waitFor();
  await assertOn(page, "#page-title");

  // The code in each language, and its copy.
  const panel = byTestId(page, "hand-over-panel");
  const chosen = panel.locator('[role="tab"][aria-selected="true"]');
  await tabTo(page, `${named("hand-over-panel")} [role=tab]`);
  for (const [key, name] of [
    ["ArrowRight", "Rust"],
    ["End", "TypeScript"],
    ["ArrowRight", "Python"],
    ["ArrowLeft", "TypeScript"],
    ["Home", "Python"],
  ]) {
    await page.keyboard.press(key);
    await chosen.getByText(name, { exact: true }).waitFor();
    await assertOn(page, '[role=tab][aria-selected="true"]');
    assert.equal(await panel.getByRole("tabpanel").count(), 1, `only ${name} is shown`);
  }
  await page.keyboard.press("Tab");
  await assertOn(page, `${named("hand-over-panel")} [aria-label="Copy the code"]`);
  await page.keyboard.press("Enter");
  await panel.getByText("Copied").waitFor();
  const code = await byTestId(page, "snippet-python").textContent();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), code);

  await press(page, named("hand-over-button"));
  await byTestId(page, "hand-over-button").waitFor({ state: "detached" });
  await byTestId(page, "session-owner").getByText(/Handed over/).waitFor();
  assert.equal((await retinker.host("restores")).body.restores[0].state, "handed_over");
  await t.test("the keyboard is on something when it is handed over", () => assertSomewhere(page));

  // What was done is told where it can be unfolded.
  await goTo(page, "Activity");
  const row = byTestId(page, "restore-row");
  await row.waitFor();
  await press(page, `${named("restore-row")} summary`);
  await row.getByText("With the optimizer's state.").waitFor();
  assert.equal(await row.getByText("With the optimizer's state.").isVisible(), true);
  await assertOn(page, "summary");
  assert.deepEqual(page.problems, []);
});

test("a session is assigned to a project and back, and the curves of its run are read", async (t) => {
  const { retinker } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const session = await service.session({ display_name: "to be assigned" });
  await trained(service, session, 0, "of six steps", 6);
  const page = await pageOf(t, retinker);
  const project = async () => (await service.search({ session_id: session }))[0].project_id;
  const shows = (name) => byTestId(page, "session-facts").getByRole("link", { name, exact: true }).waitFor();
  await goTo(page, "Sessions");
  await press(page, `${named("session-row")} a`);
  await byTestId(page, "session-state").waitFor();
  const before = await project();
  await press(page, named("assign-project"));
  await byTestId(page, "project-id").waitFor();
  await assertOn(page, IN_DIALOG);
  await tabTo(page, named("project-id"));
  await page.keyboard.press("Control+a");
  await page.keyboard.type("kitchen");
  await page.keyboard.press("Enter");
  await shows("kitchen");
  assert.equal(await project(), "kitchen");
  await t.test("the keyboard is on the page when it is assigned", () => assertSomewhere(page));
  await press(page, named("assign-undo"));
  await shows(before);
  assert.equal(await project(), before);
  await t.test("the keyboard is on something when that is taken back", () => assertSomewhere(page));

  await press(page, `${named("session-runs")} a`);
  await page.locator('[data-testid="curves"][data-whole="true"]').waitFor();
  const step = (number) => byTestId(page, "curves-readout").getByText(new RegExp(`^step ${number} ·`)).waitFor();
  await tabTo(page, "#chart-main");
  await page.keyboard.press("Home");
  await step(1);
  await page.keyboard.press("ArrowRight");
  await step(2);
  await page.keyboard.press("+");
  await byTestId(page, "curves-all").waitFor();
  await assertOn(page, "#chart-main");
  // The chart is no trap: the numbers come after it, of the part that is shown.
  await press(page, `${named("curves-values")} summary`);
  const rows = byTestId(page, "curves-table").locator("tbody tr");
  await rows.first().waitFor();
  const part = await rows.count();
  assert.ok(part > 0 && part < 6, `${part} steps of 6 are shown`);
  await page.keyboard.press("Tab");
  await assertOn(page, '[role="region"][aria-label^="Numbers of"]');
  // To see all of it again is before the chart.
  await tabBackTo(page, named("curves-all"));
  await page.keyboard.press("Enter");
  await byTestId(page, "curves-all").waitFor({ state: "detached" });
  assert.equal(await rows.count(), 6);
  await t.test("the keyboard is on something when all is shown", () => assertSomewhere(page));
  await picture(page, "pointerless-curves");
  assert.deepEqual(page.problems, []);
});

test("a view is saved, gone to and deleted, columns are chosen and widened, colours are changed", async (t) => {
  const service = await Simulated.start(t, ["--runs", "40"]);
  const retinker = await consoleOn(t, service.url, 40);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "run-row").first().waitFor();

  await tabTo(page, named("runs-search"));
  await page.keyboard.type("rank>=16");
  await page.waitForURL(/q=rank%3E%3D16/);
  await openMenu(page, "views-menu", named("view-name"));
  await tabTo(page, named("view-name"));
  await page.keyboard.type("Large ones");
  await press(page, named("view-save"));
  await page.locator(".own-view").waitFor();
  await assertOn(page, named("view-save"));
  await page.keyboard.press("Escape");
  await byTestId(page, "view-name").waitFor({ state: "detached" });
  await assertOn(page, named("views-menu"));

  await tabBackTo(page, named("runs-search"));
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await page.waitForURL((url) => !url.search.includes("q="));
  await openMenu(page, "views-menu", ".own-view");
  await press(page, `.own-view ${named("view-link")}`);
  await page.waitForURL(/q=rank%3E%3D16/);
  await page.waitForFunction(() => document.querySelector('[data-testid="runs-search"]').value === "rank>=16");
  await t.test("the keyboard is on something when a view was gone to", () => assertSomewhere(page));
  await openMenu(page, "views-menu", ".own-view");
  await press(page, '[aria-label="Delete the view Large ones"]');
  await page.locator(".own-view").waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => localStorage.getItem("retinker.views") ?? ""), "[]");
  await t.test("the keyboard is on something when a view is deleted", () => assertSomewhere(page));

  // Columns.
  const heads = page.locator('[role="columnheader"]');
  const wide = () => heads.filter({ hasText: "Base model" }).evaluate((head) => head.getBoundingClientRect().width);
  const before = await wide();
  await openMenu(page, "columns-menu", named("column-rank"));
  await tabTo(page, named("column-rank"));
  await page.keyboard.press("Space");
  await page.waitForURL(/columns=/);
  await heads.filter({ hasText: "Rank" }).waitFor({ state: "detached" });
  await tabBackTo(page, '[aria-label="Make Base model wider"]');
  await page.keyboard.press("Enter");
  await until("a wider column", async () => (await wide()) > before);
  await assertOn(page, '[aria-label="Make Base model wider"]');
  await page.keyboard.press("Escape");
  await assertOn(page, named("columns-menu"));
  await picture(page, "pointerless-columns");

  // Colours.
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  await press(page, named("theme-toggle"));
  await page.waitForFunction(() => document.documentElement.dataset.theme === "light");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.documentElement.dataset.theme === "dark");
  await assertOn(page, named("theme-toggle"));
  await page.reload();
  await byTestId(page, "run-row").first().waitFor();
  assert.equal(await theme(), "dark", "kept");
  assert.deepEqual(page.problems, []);
});

test("another connection is gone to, and back", async (t) => {
  const lab = await Retinker.up(t);
  const keys = { TINKER_API_KEY_LAB: "tml-of-the-lab" };
  const retinker = await Retinker.upWith(t, keys, "--connection", `lab=${lab.serviceUrl}`);
  for (const [url, name] of [[retinker.serviceUrl, "alpha"], [lab.serviceUrl, "beta"]]) {
    const service = new Service(url);
    await service.run(await service.session(), 0, name);
  }
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  const shows = (name) => byTestId(page, "run-row").filter({ hasText: name }).waitFor();
  await shows("alpha");
  for (const [name, run] of [["lab", "beta"], ["local", "alpha"]]) {
    const line = `[data-testid="connection"][data-name="${name}"]`;
    await openMenu(page, "connections-open", line);
    // Who only looked is back where they were.
    await page.keyboard.press("Escape");
    await page.locator(line).waitFor({ state: "detached" });
    await assertOn(page, named("connections-open"));
    await page.keyboard.press("Enter");
    await page.locator(line).waitFor();
    await press(page, line);
    await page.waitForURL((url) => (url.searchParams.get("on") ?? "local") === name);
    await shows(run);
    assert.equal(await byTestId(page, "run-row").count(), 1, "of one service alone");
  }
  assert.deepEqual(page.problems, []);
});
