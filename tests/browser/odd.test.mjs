// Texts of the service are shown as they are: markup strikes nobody, letters that go the other way stay in their place, and
// ten thousand of them break no page.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible, assertFits, assertRowsFit } from "./support/accessible.mjs";
import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Retinker, until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";
import { Simulated, consoleOn } from "./support/simulated.mjs";

/** So many runs of the simulated service have odd texts; all of them are poisoned, so that there is a plan to look at. */
const ODD = 12;
const RUNS = 40;

/** Fails if a text was run, or made elements. */
async function assertPlain(page, what) {
  assert.equal(await page.evaluate(() => window.struck), undefined, `${what} has run a text as a script`);
  const made = await page.evaluate(() => {
    const parts = ":is(main, dialog) :is(img, script, b, i:not(.placeholder i)), [onload], [onerror]";
    return document.querySelectorAll(parts).length;
  });
  assert.equal(made, 0, `${what} has made elements of a text`);
}

/** What has to hold whatever a page shows. */
const QUICK = { plain: assertPlain, width: assertFits, rows: assertRowsFit };
const ALL = { ...QUICK, access: assertAccessible };

/** The quick checks in one. */
const soundness = (page, width) => async (what) => {
  for (const run of Object.values(QUICK)) await run(page, `${what} at ${width}`);
};

/** Each check of what the page shows now, as a test of its own. */
async function looks(t, page, what, { checks = ALL } = {}) {
  await picture(page, `odd-${what}`.replaceAll(/[^\w]+/g, "-"));
  for (const [check, run] of Object.entries(checks)) {
    await t.test(`${what}: ${check}`, () => run(page, what));
  }
}

/** A console on a service whose first runs have odd texts; of those the ids, and the texts. */
async function odd(t) {
  const service = await Simulated.start(t, ["--runs", RUNS, "--every", "1", "--odd"]);
  const retinker = await consoleOn(t, service.url, RUNS);
  const { body } = await retinker.host(`runs?limit=${RUNS}&sort=activity`);
  const runs = body.rows.map((row) => row.run).slice(0, ODD);
  const texts = runs.map((run) => run.user_metadata.name);
  return { retinker, ids: runs.map((run) => run.training_run_id), texts };
}

test("no text of the service is markup, or breaks a page", async (t) => {
  const { retinker, ids } = await odd(t);
  const browser = await openBrowser(t);
  for (const width of [1280, 380]) {
    const page = await openPage(browser, retinker.consoleUrl, { viewport: { width, height: 900 } });
    const sound = soundness(page, width);
    await t.test(`the list at ${width}`, async () => {
      await page.goto(new URL("/?sort=activity", retinker.consoleUrl).href);
      await byTestId(page, "run-row").first().waitFor();
      await picture(page, `odd-runs-${width}`);
      let text = "";
      for (let at = 0; at <= ODD; at += 4) {
        await byTestId(page, "runs-scroller").evaluate((frame, row) => {
          frame.scrollTo(0, row * frame.querySelector('[data-testid="run-row"]').offsetHeight);
        }, at);
        await page.locator(`[data-testid="run-row"][aria-rowindex="${at + 2}"]`).waitFor();
        text += await page.locator("main").innerText();
        await sound("the list");
      }
      assert.match(text, /<img src=x onerror=/, "the markup can be read");
      await assertAccessible(page, `odd runs at ${width}`);
    });
    for (const [n, id] of ids.entries()) {
      await t.test(`run ${n} at ${width}`, async () => {
        await page.goto(new URL(`/runs/${encodeURIComponent(id)}`, retinker.consoleUrl).href);
        await byTestId(page, "verdict").waitFor();
        await picture(page, `odd-run-${n}-${width}`);
        await sound(`run ${n}`);
        if ((await byTestId(page, "restore-button").count()) === 0) return;
        await byTestId(page, "restore-button").click();
        // Where the odd text is nothing at all, no checkpoint fits it.
        await byTestId(page, "plan-summary").or(byTestId(page, "no-plan")).first().waitFor();
        await picture(page, `odd-plan-${n}-${width}`);
        await sound(`the plan of run ${n}`);
      });
    }
    assert.deepEqual(page.problems, []);
    await page.context().close();
  }
});

/** Asks the host to do something as the console does. */
const post = (retinker, path, body) =>
  retinker.host(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

test("odd texts break no page that is about many runs", async (t) => {
  const { retinker, ids, texts } = await odd(t);
  // What was done with them is told on a page, too: restores and changes, none of which this service can do.
  for (const id of ids) {
    const { plan } = (await post(retinker, "plans", { run_id: id })).body;
    if (plan) await post(retinker, "restores", { plan });
  }
  const { body: saved } = await retinker.host("checkpoints?limit=200");
  const pathsOf = (id) => saved.rows.map((row) => row.checkpoint.tinker_path).filter((path) => path.includes(id));
  await post(retinker, "checkpoints/actions", { action: "publish", paths: ids.flatMap(pathsOf) });
  const browser = await openBrowser(t);
  for (const width of [1280, 380]) {
    const page = await openPage(browser, retinker.consoleUrl, { viewport: { width, height: 900 } });
    const open = (path) => page.goto(new URL(path, retinker.consoleUrl).href);

    for (const [n, some] of [ids.slice(0, 8), ids.slice(-8)].entries()) {
      const what = `runs compared at ${width}, ${n}`;
      await t.test(what, async (t) => {
        await open(`/compare?${some.map((id) => `run=${encodeURIComponent(id)}`).join("&")}`);
        await byTestId(page, "compare-differences").waitFor();
        assert.equal(await byTestId(page, "compare-legend").locator("li").count(), some.length);
        await looks(t, page, what);
      });
    }

    await t.test(`checkpoints at ${width}`, async (t) => {
      await open("/checkpoints");
      await byTestId(page, "checkpoint-item").first().waitFor();
      await looks(t, page, `checkpoints at ${width}`);
    });

    for (const [n, id] of ids.entries()) {
      if (pathsOf(id).length === 0) continue;
      const what = `a checkpoint of run ${n} at ${width}`;
      await t.test(what, async (t) => {
        await open("/checkpoints");
        await page.locator(`[data-testid="checkpoint-item"][data-path*="${id}"] [data-testid="more"]`).first().click();
        await byTestId(page, "publish").or(byTestId(page, "unpublish")).waitFor();
        await looks(t, page, what, { checks: QUICK });
      });
    }

    await t.test(`what deleting would do at ${width}`, async (t) => {
      await open("/checkpoints");
      await byTestId(page, "select-page").check();
      await byTestId(page, "bulk-delete").click();
      await byTestId(page, "preview-told").waitFor();
      await looks(t, page, `what deleting would do at ${width}`);
    });

    await t.test(`activity at ${width}`, async (t) => {
      await open("/activity");
      await byTestId(page, "restore-row").first().waitFor();
      await byTestId(page, "act").first().waitFor();
      await looks(t, page, `activity at ${width}`);
      for (const summary of await page.locator("main summary").all()) await summary.click();
      await looks(t, page, `all of the activity at ${width}`);
    });

    await t.test(`the restore of many at ${width}`, async (t) => {
      await open("/?sort=activity");
      await byTestId(page, "run-row").first().waitFor();
      await byTestId(page, "runs-scroller").focus();
      await page.keyboard.press("Control+a");
      await byTestId(page, "restore-selected").click();
      await page.locator('[data-testid="confirm-bulk"]:not([disabled])').waitFor();
      for (const summary of await page.locator("dialog[open] summary").all()) await summary.click();
      await looks(t, page, `the restore of many at ${width}`);
    });

    await t.test(`the palette at ${width}`, async (t) => {
      await open("/");
      await byTestId(page, "run-row").first().waitFor();
      await page.keyboard.press("Control+k");
      for (const [n, text] of texts.entries()) {
        // A word of it, as somebody would write it; where it has none, there is nothing to look for.
        const word = text.split(/[\s\p{Cc}\u2028]+/u).find((word) => /^[\p{L}<]/u.test(word))?.slice(0, 40);
        if (!word) continue;
        await byTestId(page, "palette-text").fill(word);
        await byTestId(page, "palette-option").filter({ hasText: word }).first().waitFor();
        await looks(t, page, `the palette with run ${n} at ${width}`, { checks: QUICK });
      }
      await assertAccessible(page, `the palette at ${width}`);
    });

    await t.test(`sessions of odd runs at ${width}`, async (t) => {
      await open("/sessions");
      await page.locator('[data-testid="session-row"] .c-runs a').first().waitFor();
      await looks(t, page, `sessions of odd runs at ${width}`);
    });
    assert.deepEqual(page.problems, []);
    await page.context().close();
  }
});

test("odd texts of sessions, their labels and projects break no page", async (t) => {
  const { texts } = await odd(t);
  const retinker = await Retinker.up(t);
  const service = new Service(retinker.serviceUrl);
  const sessions = [];
  for (const text of texts) {
    // What the service takes of it: it may have bounds for names.
    const whole = { display_name: text, user_metadata: { team: text, [text]: text }, project_id: text };
    const tried = await service.ask("create_session", { tags: [], sdk_version: "test", ...whole });
    const made = tried.status === 200
      ? tried.answer.session_id
      : await service.session({ display_name: text, user_metadata: { team: text } });
    sessions.push(made);
    await service.run(made, 0, text);
  }
  await until("all runs", async () => (await retinker.host("runs?limit=1")).body.total === texts.length);
  const browser = await openBrowser(t);
  for (const width of [1280, 380]) {
    const page = await openPage(browser, retinker.consoleUrl, { viewport: { width, height: 900 } });
    const open = (path) => page.goto(new URL(path, retinker.consoleUrl).href);
    await t.test(`sessions at ${width}`, async (t) => {
      await open("/sessions");
      await byTestId(page, "session-row").nth(texts.length - 1).waitFor();
      assert.match(await page.locator("main").innerText(), /<img src=x onerror=/, "the markup can be read");
      await looks(t, page, `sessions at ${width}`);
    });
    await t.test(`usage at ${width}`, async (t) => {
      await open("/usage");
      await byTestId(page, "storage-row").first().waitFor();
      await looks(t, page, `usage at ${width}`);
    });
    for (const [n, id] of sessions.entries()) {
      await t.test(`session ${n} at ${width}`, async (t) => {
        await open(`/sessions/${id}`);
        await byTestId(page, "session-runs").waitFor();
        await looks(t, page, `session ${n} at ${width}`);
        await byTestId(page, "finish-session").click();
        await byTestId(page, "finish-consequence").waitFor();
        await looks(t, page, `the end of session ${n} at ${width}`, { checks: QUICK });
        await page.keyboard.press("Escape");
        await byTestId(page, "assign-project").click();
        await byTestId(page, "project-id").waitFor();
        await looks(t, page, `the project of session ${n} at ${width}`, { checks: QUICK });
      });
    }
    assert.deepEqual(page.problems, []);
    await page.context().close();
  }
});
