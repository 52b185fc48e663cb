// A clock that is wrong by a day, and a tab that slept for an hour, on every page that tells a time (`tabs.test.mjs` has
// the list of runs): when things were is told by the host's clock, and what happened meanwhile is there for who looks.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertSound, row } from "./support/acting.mjs";
import { byTestId, holdBack, openBrowser, openPage, picture } from "./support/browser.mjs";
import { DAY, assertTimes, exact, putWrong, show, state } from "./support/clocks.mjs";
import { faulty } from "./support/lost.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { PAGES } from "./support/pages.mjs";
import { scene } from "./support/scene.mjs";
import { Service } from "./support/service.mjs";

/** Pages by their names in the list of all pages, and how many times they tell at least, that of the header among them. */
const TIMED = {
  checkpoints: 4,
  sessions: 6,
  "a session": 3,
  activity: 3,
  "a healthy run": 4,
  "a poisoned run": 4,
  "a restored run": 3,
  "a restored run's successor": 3,
  samplers: 1,
  projects: 1,
  usage: 1,
};

/** A page in a context whose clock is wrong by so much. */
async function wrongPage(browser, retinker, wrong) {
  const page = await openPage(browser, "about:blank");
  await putWrong(page.context(), wrong);
  await page.goto(retinker.consoleUrl);
  await page.waitForURL((now) => !now.hash.includes("token="));
  return page;
}

test("a tab whose clock is wrong by a day tells on every page when things were", async (t) => {
  const made = await scene(t);
  const browser = await openBrowser(t);
  const expiry = async (path) => {
    const { checkpoints } = await made.retinker.service("checkpoints?limit=100");
    return checkpoints.find((one) => one.tinker_path === path).expires_at;
  };
  for (const [what, wrong, days] of [["a day behind", -DAY, 30], ["a day ahead", DAY, 90]]) {
    await t.test(what, async (t) => {
      const page = await wrongPage(browser, made.retinker, wrong);
      const open = (path) => page.goto(new URL(path, made.retinker.consoleUrl).href);
      for (const [name, least] of Object.entries(TIMED)) {
        await t.test(name, async () => {
          const of = PAGES.find((page) => page.name === name);
          await open(of.path(made));
          await byTestId(page, of.there).first().waitFor();
          await state(page, "live");
          await assertTimes(page, `${name}, ${what}`, least);
          assert.ok(Math.abs(exact(await page.locator(".as-of").getAttribute("title")) - Date.now()) < DAY / 2);
          await picture(page, `clock-${what}-${name}`.replaceAll(/\W+/g, "-"));
        });
      }

      await t.test("a life from now is from the right now, and what is young is found as young", async () => {
        const path = encodeURIComponent(made.healthy);
        await open(`/checkpoints?q=${encodeURIComponent("age<1h")}%20run:${path}`);
        const item = byTestId(page, "checkpoint-item").first();
        const of = await item.getAttribute("data-path");
        await row(page, of).locator('[data-testid="more"]').click();
        await byTestId(page, "life").click();
        await byTestId(page, "life-from-now").check();
        await byTestId(page, "life-days").selectOption({ label: `${days} days` });
        await byTestId(page, "confirm-life").click();
        await page.locator('[data-testid="job"][data-running="false"]').waitFor();
        const left = Date.parse(await expiry(of)) - Date.now();
        assert.ok(Math.abs(left - days * DAY) < DAY / 24, `${left / DAY} days`);
        await row(page, of).locator(".c-expires").getByText(new RegExp(`^in (${days - 1}|${days}) d$`)).waitFor();
        await assertTimes(page, "checkpoints with a life", 3);
      });
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });
  }

  await t.test("a run that is handed over in a tab ahead of its time is told as kept alive", async () => {
    const page = await wrongPage(browser, made.retinker, DAY);
    await page.goto(new URL(`/runs/${encodeURIComponent(made.successor)}`, made.retinker.consoleUrl).href);
    await byTestId(page, "hand-over-button").click();
    const owner = byTestId(page, "session-owner");
    await owner.getByText(/Handed over\. retinker keeps the session alive until/).waitFor();
    const [, ...told] = (await owner.innerText()).match(/alive until (\d\d):(\d\d):(\d\d)/);
    const until = new Date();
    until.setHours(...told.map(Number));
    // Of the next midnight, where it is after that.
    const left = (until - Date.now() + DAY) % DAY;
    assert.ok(left < DAY / 24, `${left / 60_000} minutes from now, by the right clock`);
    const { body: { restores } } = await made.retinker.host("restores");
    assert.equal(restores[0].state, "handed_over");
    assert.deepEqual(page.problems, []);
  });
});

test("since when a service is away is told by the right clock, also in a tab that is opened while it is", async (t) => {
  const { retinker: up } = await faulty(t);
  await new Service(up.serviceUrl).session({ display_name: "there" });
  const proxy = await Misbehaving.start(t, up.serviceUrl);
  const retinker = await proxy.console(t);
  const browser = await openBrowser(t);
  const pages = ["/sessions", "/usage", "/checkpoints"];
  const open = (path) => wrongPage(browser, retinker, DAY).then(async (page) => {
    await page.goto(new URL(path, retinker.consoleUrl).href);
    return page;
  });
  const before = await Promise.all(pages.map(open));
  for (const page of before) await state(page, "live");
  const begun = Date.now();
  await proxy.misbehave("down");
  const since = async (page, path) => {
    await byTestId(page, "banner-problem").first().waitFor();
    await state(page, "stale");
    await assertTimes(page, path);
    for (const banner of await byTestId(page, "banner-problem").all()) {
      const text = await banner.innerText();
      const told = exact(text.match(/Seen here since [^.]*/)[0]);
      assert.ok(told >= begun - 15_000 && told <= Date.now() + 15_000, `${path}, since ${begun}: ${text}`);
    }
  };
  for (const [at, page] of before.entries()) {
    await t.test(`${pages[at]}, open before`, () => since(page, pages[at]));
  }
  const during = await Promise.all(pages.map(open));
  for (const [at, page] of during.entries()) {
    await t.test(`${pages[at]}, opened meanwhile`, () => since(page, pages[at]));
  }
  await t.test("/sessions, where what it reads fails before the host has told its time", async () => {
    const [page] = during;
    const go = await Promise.all(["status", "events"].map((what) => holdBack(page, `**/retinker/v1/${what}`)));
    await page.reload();
    await byTestId(page, "banner-problem").first().waitFor();
    for (const tell of go) tell();
    await since(page, "/sessions");
  });
  await picture(during[0], "clock-since");
  for (const page of [...before, ...during]) assertSound(page);
});

test("a tab that slept for an hour shows on every page what happened meanwhile, and when", async (t) => {
  const { retinker } = await faulty(t);
  const service = new Service(retinker.serviceUrl);
  const save = async (run, seq_id, path) => (await service.call("save_weights", { model_id: run, seq_id, path })).path;
  const session = await service.session({ display_name: "there before" });
  const run = await service.run(session, 0, "there before");
  const path = await save(run, 1, "before");
  const after = {};
  const has = (id, attribute, value) => (page) =>
    page.locator(`[data-testid="${id}"][${attribute}="${value()}"]`).first();
  const text = (id, words) => (page) => byTestId(page, id).filter({ hasText: words }).first();
  /** Each page: its address, what is there before it sleeps, and what it has when somebody looks again. */
  const pages = [
    { at: "/checkpoints", there: "checkpoint-item", then: has("checkpoint-item", "data-path", () => after.path) },
    { at: "/sessions", there: "session-row", then: has("session-row", "data-session-id", () => after.session) },
    { at: `/sessions/${session}`, there: "session-runs", then: text("session-runs", "made meanwhile") },
    { at: "/activity", there: "no-acts", then: text("act", "Publish checkpoints") },
    {
      at: `/runs/${encodeURIComponent(run)}`,
      there: "checkpoint-row",
      then: has("checkpoint-row", "data-path", () => after.path),
    },
    { at: "/usage", there: "storage-total", then: text("storage-total", "in 2 checkpoints") },
    { at: "/projects", there: "project-row", then: text("project-row", "meanwhile") },
    { at: "/samplers", there: "samplers-total", then: text("samplers-total", "1 sampler in") },
  ];
  const browser = await openBrowser(t);
  for (const one of pages) {
    one.page = await openPage(browser, "about:blank");
    one.asked = [];
    await one.page.clock.install();
    one.page.on("request", (request) => request.url().includes("/retinker/v1/") && one.asked.push(request.url()));
    await one.page.goto(retinker.consoleUrl);
    await one.page.waitForURL((now) => !now.hash.includes("token="));
    await one.page.goto(new URL(one.at, retinker.consoleUrl).href);
    await byTestId(one.page, one.there).first().waitFor();
    await state(one.page, "live");
    await show(one.page, false);
    await state(one.page, "paused");
    // What was asked before it was hidden may still be on its way, and what was put off by a few seconds as well.
    await one.page.clock.runFor(10_000);
  }

  after.path = await save(run, 2, "meanwhile");
  after.session = await service.session({ display_name: "made meanwhile", project_id: "meanwhile" });
  await service.run(session, 1, "made meanwhile");
  await service.post("create_sampling_session", {
    session_id: session, sampling_session_seq_id: 0, base_model: "retinker/nano-llama",
  });
  const acted = await retinker.host("checkpoints/actions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ action: "publish", paths: [path] }),
  });
  assert.equal(acted.body.outcomes[0].done, true);

  for (const { at, there, then, page, asked } of pages) {
    await t.test(at, async () => {
      asked.length = 0;
      await page.clock.fastForward("01:00:00");
      assert.deepEqual(asked, [], "nothing is read while nobody looks");
      assert.equal(await then(page).count(), 0, "and nothing new is shown");
      assert.ok((await byTestId(page, there).count()) > 0, "what was read stays");
      await show(page, true);
      await page.clock.resume();
      await state(page, "live");
      await then(page).waitFor({ timeout: 15_000 });
      await assertTimes(page, `${at} after an hour`);
      await picture(page, `slept-${at}`.replaceAll(/\W+/g, "-"));
      assert.deepEqual(page.problems, []);
    });
  }
});
