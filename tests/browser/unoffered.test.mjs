// Services that offer less than the embedded one: each page says in plain words what is not offered, or hides it, shows
// what it can, and raises no alarm.
import assert from "node:assert/strict";
import { test } from "node:test";

import { row as item } from "./support/acting.mjs";
import { byTestId, openBrowser, openPage, picture, runRow } from "./support/browser.mjs";
import { state } from "./support/clocks.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Retinker } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";
import { Training } from "./support/train.mjs";

/** What services leave out that offer runs, checkpoints and sessions. Nobody but Tinker itself has billing. */
const LEAN = [
  /^POST \/api\/v1\/sessions\/search$/,
  /^PUT \/api\/v1\/sessions\/[^/]+\/project$/,
  /^POST \/api\/v1\/copy_weights$/,
  // Curves, what happened to a run, and which runs have changed are told by the embedded service alone.
  /^\w+ \/retinker\//,
];

/** And those that offer nothing but runs and checkpoints, which stay as they were saved. */
const BARE = [
  ...LEAN,
  /^GET \/api\/v1\/sessions/,
  /^POST \/api\/v1\/sessions\/[^/]+\/finish$/,
  /^GET \/api\/v1\/samplers\//,
  /^\w+ \/api\/v1\/training_runs\/.*\/(publish|ttl|archive)$/,
  /^DELETE \/api\/v1\/training_runs\//,
];

/** A console on a service without these, with a run that was trained and one beside it. */
async function consoleWithout(t, patterns) {
  const behind = await Retinker.up(t);
  const often = ["--steps", "4", "--save-every", "2"];
  const training = Training.create(t, behind.serviceUrl, { name: "trained", rank: 8 }, ...often);
  await training.finish();
  const trained = training.attachment.model_id;
  const service = new Service(behind.serviceUrl);
  const session = await service.session({ display_name: "Kitchen", user_metadata: { team: "x" }, project_id: "p" });
  const other = await service.run(session, 0, "other");
  const { path: saved } = await service.call("save_weights", { model_id: other, seq_id: 1, path: "saved" });
  const proxy = await Misbehaving.start(t, behind.serviceUrl);
  proxy.offersNot(...patterns);
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  for (const run of [trained, other]) await runRow(page, run, "healthy").waitFor();
  const go = async (path) => {
    await page.goto(new URL(path, retinker.consoleUrl).href);
    await state(page, "live");
  };
  return { behind, service, page, go, trained, other, session, saved };
}

const main = (page) => page.locator("main").innerText();
const encoded = encodeURIComponent;

/** The page is whole, and nobody is alarmed. */
async function calm(page, name) {
  await page.waitForFunction(() => !/Reading/.test(document.querySelector("main").innerText));
  await picture(page, `unoffered-${name}`);
  const alarms = page.locator('main [role="alert"], [data-testid="banner-problem"]');
  assert.deepEqual(await alarms.allInnerTexts(), [], name);
  assert.doesNotMatch(await main(page), /Reading|\b404\b|Not Found|could not be read/, name);
}

/** That it is the service that does not offer it, and nothing of how that was found out. */
function inPlainWords(text) {
  assert.match(text, /service (offers no|does not offer)/);
  assert.doesNotMatch(text, /404|copy_weights|set_checkpoint|delete_checkpoint|endpoint|Check the/);
}

/** Does this with a checkpoint, and gives what the page says that it came to. */
async function act(page, path, ...buttons) {
  if (await byTestId(page, "job").isVisible()) await byTestId(page, "job-close").click();
  await item(page, path).locator('[data-testid="more"]').click();
  for (const button of buttons) await byTestId(page, button).click();
  await page.locator('[data-testid="job"][data-running="false"]').waitFor();
  return byTestId(page, "job").innerText();
}

test("without a search of sessions, projects, curves, billing and copies", async (t) => {
  const { behind, service, page, go, trained, other, session, saved } = await consoleWithout(t, LEAN);
  const step = (...about) => t.test(...about);

  await step("sessions", async () => {
    await go("/sessions");
    await byTestId(page, "sessions-no-search").waitFor();
    assert.match(await byTestId(page, "sessions-no-search").innerText(), /no search of sessions/);
    assert.equal(await page.locator("form[role=search]").count(), 0, "nothing to search with");
    const row = page.locator(`[data-testid="session-row"][data-session-id="${session}"]`);
    await row.waitFor();
    assert.match(await row.innerText(), /Kitchen[^]*Not told[^]*other/);
    assert.equal(await byTestId(page, "session-row").count(), 2);
    await calm(page, "sessions");
    // A link from elsewhere cannot be heeded: all is listed, and it is said.
    await go("/sessions?status=failed&q=nothing");
    await row.waitFor();
    await byTestId(page, "sessions-no-search").waitFor();
    await calm(page, "sessions-filtered");
  });

  await step("a session, which can be finished all the same", async () => {
    await go(`/sessions/${session}`);
    await byTestId(page, "session-runs").getByRole("link", { name: "other" }).waitFor();
    assert.equal(await page.title(), "Kitchen · retinker");
    assert.match(await byTestId(page, "session-labels").innerText(), /team\s+x/);
    assert.match(await byTestId(page, "session-state").innerText(), /Not told/);
    assert.equal(await byTestId(page, "assign-project").count(), 0, "there are no projects");
    await calm(page, "session");
    await byTestId(page, "finish-session").click();
    await byTestId(page, "confirm").click();
    await byTestId(page, "finish-consequence").waitFor({ state: "detached" });
    const [ended] = await service.search({ session_id: session });
    assert.equal(ended.status.type, "client_finished");
    await calm(page, "session-finished");
  });

  await step("that it was finished is told", async () => {
    assert.match(await main(page), /finished/i);
    assert.equal(await byTestId(page, "finish-session").count(), 0, "what is over is not finished again");
  });

  await step("usage", async () => {
    await go("/usage");
    await byTestId(page, "no-billing").waitFor();
    assert.match(await byTestId(page, "no-billing").innerText(), /offers no billing/);
    assert.match(await byTestId(page, "no-storage").innerText(), /does not tell what is stored/);
    assert.doesNotMatch(await main(page), /No checkpoint is stored|Nothing was used/);
    await calm(page, "usage");
  });

  await step("a run", async () => {
    await go(`/runs/${encoded(trained)}`);
    await byTestId(page, "checkpoint-row").nth(1).waitFor();
    await byTestId(page, "run-session").waitFor();
    assert.match(await byTestId(page, "run-session").innerText(), /Status\s+not told/);
    await byTestId(page, "curves").waitFor({ state: "hidden" });
    assert.equal(await byTestId(page, "verdict").getAttribute("data-health"), "healthy");
    await byTestId(page, "evidence").getByText("last asked").waitFor();
    await calm(page, "run");
  });

  await step("runs compared", async () => {
    await go(`/compare?run=${encoded(trained)}&run=${encoded(other)}`);
    await byTestId(page, "compare-differences").waitFor();
    await byTestId(page, "curves").waitFor({ state: "hidden" });
    assert.match(await byTestId(page, "compare-differences").innerText(), /8[^]*4/, "their ranks");
    await calm(page, "compare");
  });

  await step("checkpoints", async (t) => {
    await go("/checkpoints");
    await byTestId(page, "checkpoint-item").nth(2).waitFor();
    await calm(page, "checkpoints");

    // By a measure that nobody tells, nothing is deleted.
    await byTestId(page, "retention-button").click();
    await byTestId(page, "keep-last").fill("");
    await byTestId(page, "keep-best").fill("1");
    await byTestId(page, "preview-retention").click();
    await byTestId(page, "preview-told").getByText("Nothing would be deleted.").waitFor();
    assert.match(await byTestId(page, "checkpoint-dialog").innerText(), /the service offers no losses/);
    await calm(page, "clean-up");
    await page.keyboard.press("Escape");

    await t.test("are published, and what deleting would save is not told", async () => {
      assert.match(await act(page, saved, "publish"), /1 checkpoint published\./);
      await item(page, saved).locator('[data-testid="more"]').click();
      await byTestId(page, "delete").click();
      await byTestId(page, "preview-told").waitFor();
      assert.doesNotMatch(await byTestId(page, "preview-told").innerText(), /\$|saves/);
      await page.keyboard.press("Escape");
    });

    let text;
    await t.test("are not copied", async () => {
      text = await act(page, saved, "copy");
      await picture(page, "unoffered-copy");
      assert.match(text, /0 of 1 checkpoint copied\./);
      const { checkpoints } = await behind.service("checkpoints?limit=100");
      assert.equal(checkpoints.length, 3);
      const copies = (await service.search({})).filter((one) => /cop(y|ies) of/.test(one.display_name ?? ""));
      assert.deepEqual(copies.filter((one) => one.status.type === "active"), [], "no session is left open for them");
    });
    await t.test("which is told in plain words", () => inPlainWords(text));
  });
  assert.deepEqual(page.problems, []);
});

test("with nothing but runs and checkpoints", async (t) => {
  const { behind, page, go, trained, other, session, saved } = await consoleWithout(t, BARE);
  const step = (...about) => t.test(...about);

  await step("sessions are those of the runs", async () => {
    await go("/sessions");
    await byTestId(page, "sessions-no-search").waitFor();
    const row = page.locator(`[data-testid="session-row"][data-session-id="${session}"]`);
    await row.getByRole("link", { name: "other" }).waitFor();
    await calm(page, "bare-sessions");
  });

  await step("a session is said not to be told of", async () => {
    await go(`/sessions/${session}`);
    await page.getByText("This service tells nothing of single sessions.").waitFor();
    await calm(page, "bare-session");
  });

  await step("a run", async () => {
    await go(`/runs/${encoded(other)}`);
    await byTestId(page, "checkpoint-row").waitFor();
    await byTestId(page, "curves").waitFor({ state: "hidden" });
    await calm(page, "bare-run");
  });

  await step("runs compared, and usage", async () => {
    await go(`/compare?run=${encoded(trained)}&run=${encoded(other)}`);
    await byTestId(page, "compare-differences").waitFor();
    await calm(page, "bare-compare");
    await go("/usage");
    await byTestId(page, "no-billing").waitFor();
    await byTestId(page, "no-storage").waitFor();
    await calm(page, "bare-usage");
  });

  const texts = [];
  for (const [name, buttons, outcome] of [
    ["publish", ["publish"], "published"],
    // What never expires has no life to be made longer.
    ["life", ["life", "life-from-now", "confirm-life"], "given another life"],
    ["delete", ["delete", "confirm-delete"], "deleted"],
  ]) {
    await step(`a checkpoint is not ${outcome}, and it is said`, async () => {
      await go("/checkpoints");
      await item(page, saved).waitFor();
      texts.push(await act(page, saved, ...buttons));
      await picture(page, `unoffered-${name}`);
      assert.match(texts.at(-1), new RegExp(`^0 of 1 checkpoint ${outcome}\\.`));
      const { checkpoints } = await behind.service("checkpoints?limit=100");
      const now = checkpoints.find((one) => one.tinker_path === saved);
      assert.deepEqual([now?.public, now?.expires_at ?? null], [false, null]);
      assert.equal(await item(page, saved).count(), 1, "it stays in the list");
    });
  }
  await step("in plain words", () => texts.forEach(inPlainWords));

  await step("it is said that there is no archive", async () => {
    await go("/checkpoints");
    await item(page, saved).locator('[data-testid="more"]').click();
    await byTestId(page, "download").click();
    await page.getByText("This service offers no archive").waitFor();
    await picture(page, "unoffered-download");
  });
  // What is not offered is answered with a status for that, which browsers report.
  assert.deepEqual(page.problems.filter((problem) => !/501/.test(problem)), []);
});
