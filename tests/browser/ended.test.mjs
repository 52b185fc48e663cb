// More sessions than are shown at first, and those that failed, by whose fault.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { assertSomewhere } from "./support/keyboard.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Retinker } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

async function start(t) {
  const retinker = await Retinker.up(t);
  return { retinker, service: new Service(retinker.serviceUrl) };
}

const ids = (page) => byTestId(page, "session-row").evaluateAll((rows) => rows.map((row) => row.dataset.sessionId));
const shows = (page, count) =>
  page.waitForFunction((n) => document.querySelectorAll('[data-testid="session-row"]').length === n, count);

test("more sessions are shown when they are asked for, to the last one", async (t) => {
  const { retinker, service } = await start(t);
  for (let n = 0; n < 105; n += 1) await service.session({ display_name: n < 60 ? `early ${n}` : `late ${n}` });
  const wanted = (await service.search({ limit: 200 })).map((session) => session.session_id);
  assert.equal(wanted.length, 105);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.getByRole("link", { name: "Sessions" }).click();
  const total = byTestId(page, "sessions-total");
  const more = byTestId(page, "sessions-more");
  await total.getByText("The newest 50 sessions; there are more", { exact: true }).waitFor();
  assert.deepEqual(await ids(page), wanted.slice(0, 50));
  await picture(page, "sessions-more");
  await more.focus();
  await page.keyboard.press("Enter");
  await total.getByText("The newest 100 sessions; there are more", { exact: true }).waitFor();
  assert.deepEqual(await ids(page), wanted.slice(0, 100));
  await t.test("the keyboard is on something when there are more", () => assertSomewhere(page));
  await more.focus();
  await page.keyboard.press("Enter");
  await total.getByText("105 sessions", { exact: true }).waitFor();
  assert.deepEqual(await ids(page), wanted, "all of the service's, newest first");
  await more.waitFor({ state: "detached" });
  await t.test("the keyboard is on something when there are no more", () => assertSomewhere(page));

  // What is looked for begins again with as many as at first.
  await byTestId(page, "sessions-search").fill("early");
  await total.getByText("The newest 50 sessions; there are more", { exact: true }).waitFor();
  await more.click();
  await total.getByText("60 sessions", { exact: true }).waitFor();
  assert.deepEqual(await ids(page), wanted.slice(45));
  await byTestId(page, "sessions-search").fill("");
  await total.getByText("The newest 50 sessions; there are more", { exact: true }).waitFor();
  assert.deepEqual(page.problems, []);
});

/** Why a session failed: its category as services name it, what the list makes of it and what its run's page does, and what
 * the service says of it. */
const FAILED = [
  ["user", "a request was at fault", "and the service says that a request was at fault", "the rate was no number"],
  ["internal", "the service failed", "and the service says that it was its own fault", "a machine died"],
  // One that this version does not know is told in the service's word.
  ["weather", "weather", "The run's session failed (weather)", "it rained in"],
];

test("sessions that failed are found, and told by whose fault", async (t) => {
  const { retinker: behind, service } = await start(t);
  // The embedded service has sessions fail only after minutes, and never by a request's fault: it is said for it.
  const failures = new Map();
  for (const [category, , , message] of FAILED) {
    const session = await service.session({ display_name: `failed by ${category}` });
    const run = await service.run(session, 0, `run of ${category}`);
    const reason = { type: "training_run", training_run_id: run };
    failures.set(session, { type: "failed", category, message, reason });
  }
  const sound = await service.session({ display_name: "sound" });
  const proxy = await Misbehaving.start(t, behind.serviceUrl);
  const { sessions: all } = await service.post("sessions/search", { limit: 200 });
  const known = all.map((one) => ({ ...one, status: failures.get(one.session_id) ?? one.status }));
  proxy.answers(/^POST \/api\/v1\/sessions\/search$/, (_, { session_id, statuses }) => {
    const isAsked = ({ type }) => !statuses?.length || statuses.some((one) => one.type === type);
    return { sessions: known.filter((one) => isAsked(one.status) && (!session_id || one.session_id === session_id)) };
  });
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.getByRole("link", { name: "Sessions" }).click();
  await shows(page, 4);

  await byTestId(page, "sessions-status").selectOption({ label: "Failed" });
  await page.waitForURL(/\?status=failed$/);
  await shows(page, 3);
  assert.deepEqual(await ids(page), known.map((one) => one.session_id).filter((id) => failures.has(id)));
  await picture(page, "sessions-failed");
  const row = (id) => page.locator(`[data-testid="session-row"][data-session-id="${id}"]`);
  for (const [at, session] of [...failures.keys()].entries()) {
    const [category, fault, onRun, message] = FAILED[at];
    const inList = `${fault}: ${message}`;
    await t.test(`by ${category}`, async () => {
      await page.goto(new URL("/sessions?status=failed", retinker.consoleUrl).href);
      await shows(page, 3);
      assert.equal(await row(session).getAttribute("data-status"), "failed");
      const told = row(session).locator(".c-state");
      assert.deepEqual((await told.innerText()).split("\n"), ["Failed", inList]);
      await row(session).getByRole("link", { name: `failed by ${category}` }).click();
      await byTestId(page, "session-state").getByText(inList, { exact: true }).waitFor();
      assert.equal(await byTestId(page, "finish-session").count(), 0, "what is over is not finished again");
      await byTestId(page, "session-runs").getByRole("link", { name: `run of ${category}` }).click();
      await page.locator('[data-testid="run-session"][data-status="failed"]').waitFor();
      await byTestId(page, "evidence").getByText(`${onRun}: ${message}.`).waitFor();
      await picture(page, `run-failed-${category}`);
    });
  }

  await t.test("and those that last are not among them", async () => {
    await page.goto(new URL("/sessions?status=active", retinker.consoleUrl).href);
    await shows(page, 1);
    assert.deepEqual(await ids(page), [sound]);
  });
  assert.deepEqual(page.problems, []);
});
