// Sessions: found, looked into, assigned to a project and finished; and what is stored.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Retinker, until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";
import { Training } from "./support/train.mjs";

async function start(t) {
  const retinker = await Retinker.up(t);
  return { retinker, service: new Service(retinker.serviceUrl) };
}

const row = (page, id) => page.locator(`[data-testid="session-row"][data-session-id="${id}"]`);

async function shows(page, ...ids) {
  await page.waitForFunction(
    (wanted) =>
      JSON.stringify([...document.querySelectorAll('[data-testid="session-row"]')].map((row) => row.dataset.sessionId)) ===
      JSON.stringify(wanted),
    ids,
  );
}

async function fitsIn(page, width) {
  await page.setViewportSize({ width, height: 800 });
  const wider = await page.evaluate(
    () => document.documentElement.scrollWidth > document.documentElement.clientWidth,
  );
  assert.equal(wider, false, `nothing is cut off at ${width} px`);
}

test("sessions are found by words, label, status and project, and the address holds it", async (t) => {
  const { retinker, service } = await start(t);
  const sweep = await service.session({ display_name: "Nightly sweep", user_metadata: { team: "x" }, project_id: "p" });
  const odd = await service.session({
    display_name: `<b>markup</b> \u202eabc ${"long ".repeat(2000)}`,
    user_metadata: { team: "y" },
  });
  const over = await service.session({ display_name: "done", project_id: "p" });
  await service.post(`sessions/${over}/finish`, { reason: { type: "errored" }, detail: "out of memory" });
  const run = await service.run(sweep, 0, "first of the sweep");

  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.getByRole("link", { name: "Sessions" }).click();
  await shows(page, over, odd, sweep);
  assert.equal(await page.title(), "Sessions · retinker");
  assert.equal(await byTestId(page, "sessions-total").innerText(), "3 sessions");
  assert.equal(await page.locator("b").count(), 0, "a name is no markup");
  assert.match(await row(page, over).innerText(), /Finished[^]*its program met an error: out of memory/);
  await until("the run in the list", async () => (await row(page, sweep).innerText()).includes("first of the sweep"));
  await picture(page, "sessions");

  await byTestId(page, "sessions-search").fill("SWEEP nightly");
  await shows(page, sweep);
  assert.match(page.url(), /\?q=SWEEP%20nightly/);
  await byTestId(page, "sessions-search").fill("meta.team=y");
  await shows(page, odd);
  await byTestId(page, "sessions-search").fill(over);
  await shows(page, over);
  await byTestId(page, "sessions-search").fill("nothing like that");
  await byTestId(page, "no-sessions").waitFor();
  assert.match(await byTestId(page, "no-sessions").innerText(), /No session matches/);
  await page.getByRole("link", { name: "Show all sessions" }).click();
  await shows(page, over, odd, sweep);
  assert.equal(await byTestId(page, "sessions-search").inputValue(), "", "the field follows the address");
  await byTestId(page, "sessions-status").selectOption("active");
  await shows(page, odd, sweep);
  await byTestId(page, "sessions-project").selectOption("p");
  await shows(page, sweep);
  await page.goBack();
  await shows(page, odd, sweep);
  await page.goto(new URL("/sessions?status=client_finished&project=p", retinker.consoleUrl).href);
  await shows(page, over);
  assert.equal(await byTestId(page, "sessions-status").inputValue(), "client_finished");
  assert.equal(await byTestId(page, "sessions-project").inputValue(), "p");

  await page.goto(new URL("/sessions", retinker.consoleUrl).href);
  await shows(page, over, odd, sweep);
  await row(page, sweep).getByRole("link", { name: "first of the sweep" }).click();
  await page.waitForURL(new RegExp(`/runs/${encodeURIComponent(run)}`));
  await page.locator(`a[href="/sessions/${sweep}"]`).first().click();
  await byTestId(page, "session-runs").waitFor();
  assert.equal(await page.title(), "Nightly sweep · retinker");
  assert.match(await byTestId(page, "session-labels").innerText(), /team\s+x/);
  await page.goto(new URL("/sessions/nobody", retinker.consoleUrl).href);
  await byTestId(page, "session-not-found").waitFor();

  for (const path of ["/sessions", `/sessions/${odd}`]) {
    await page.goto(new URL(path, retinker.consoleUrl).href);
    await page.locator('[data-testid="session-row"], [data-testid="session-facts"]').first().waitFor();
    await fitsIn(page, 380);
    await picture(page, path === "/sessions" ? "sessions-narrow" : "session-narrow");
    await page.setViewportSize({ width: 1280, height: 860 });
  }
  // The address that there is no such session at answers 404, which browsers report.
  assert.deepEqual(page.problems.filter((problem) => !/404/.test(problem)), []);
});

test("a session is assigned to a project and finished by the keyboard, and its run takes no more", async (t) => {
  const { retinker, service } = await start(t);
  const long = ["--steps", "100000", "--save-every", "4"];
  const training = Training.create(t, retinker.serviceUrl, { name: "to be stopped" }, ...long);
  await training.steps(6);
  const session = training.attachment.session_id;
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.goto(new URL(`/sessions/${session}`, retinker.consoleUrl).href);
  await byTestId(page, "session-runs").waitFor();
  await picture(page, "session");

  await byTestId(page, "assign-project").focus();
  await page.keyboard.press("Enter");
  const dialog = byTestId(page, "session-dialog");
  await byTestId(page, "project-id").fill("kitchen");
  await page.keyboard.press("Enter");
  await byTestId(page, "session-facts").getByRole("link", { name: "kitchen" }).waitFor();
  const [known] = await service.search({ session_id: session });
  assert.equal(known.project_id, "kitchen", "the service knows");
  // It can be taken back, and done again.
  await byTestId(page, "assign-undo").getByText("Undo: back to local").waitFor();
  await byTestId(page, "assign-undo").click();
  await byTestId(page, "session-facts").getByRole("link", { name: "local" }).waitFor();
  assert.equal((await service.search({ session_id: session }))[0].project_id, "local");
  assert.equal(await byTestId(page, "assign-undo").count(), 0);
  await byTestId(page, "assign-project").click();
  await byTestId(page, "project-id").fill("kitchen");
  await page.keyboard.press("Enter");
  await byTestId(page, "session-facts").getByRole("link", { name: "kitchen" }).waitFor();

  await byTestId(page, "finish-session").focus();
  await page.keyboard.press("Enter");
  await byTestId(page, "finish-consequence").waitFor();
  assert.match(await dialog.innerText(), /can no longer be trained/);
  await picture(page, "session-finish");
  await page.keyboard.press("Escape");
  await byTestId(page, "finish-consequence").waitFor({ state: "detached" });
  assert.equal((await service.search({ session_id: session }))[0].status.type, "active", "nothing was done");
  await byTestId(page, "finish-session").click();
  await byTestId(page, "confirm").click();
  await byTestId(page, "session-state").getByText("Finished").waitFor();
  assert.match(await byTestId(page, "session-state").innerText(), /it was stopped from outside/);
  assert.equal(await byTestId(page, "finish-session").count(), 0, "what is over is not finished again");
  const [ended] = await service.search({ session_id: session });
  assert.deepEqual([ended.status.type, ended.status.reason.type], ["client_finished", "interrupted"]);
  const { code } = await training.exited;
  assert.notEqual(code, 0, "the run takes no more steps");
  const { status } = await service.ask("session_heartbeat", { session_id: session });
  assert.equal(status, 410);

  // What is stored is told by the sessions here, and that nothing is billed in plain words.
  await page.getByRole("link", { name: "Usage" }).click();
  await byTestId(page, "no-billing").waitFor();
  const stored = byTestId(page, "storage-row");
  await stored.waitFor();
  const count = ended.checkpoints_count;
  assert.ok(count > 0);
  assert.match(await stored.innerText(), new RegExp(`kitchen[^]*\\b${count}\\b[^]*B`));
  await picture(page, "usage");
  await fitsIn(page, 380);
  assert.deepEqual(page.problems, []);
});

test("how a session ended is chosen when it is finished, and told from then on", async (t) => {
  const { retinker, service } = await start(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  for (const [reason, choice, told] of [
    ["success", "Success: it did what it was for", /it did what it was for/],
    ["errored", "Errored: it met an error", /its program met an error/],
  ]) {
    const session = await service.session({ display_name: reason });
    await service.run(session, 0, `run of ${reason}`);
    await page.goto(new URL(`/sessions/${session}`, retinker.consoleUrl).href);
    await byTestId(page, "finish-session").click();
    assert.equal(await byTestId(page, "finish-reason").inputValue(), "interrupted", "the careful one, if none is chosen");
    await byTestId(page, "finish-reason").selectOption({ label: choice });
    await byTestId(page, "confirm").click();
    const state = byTestId(page, "session-state");
    await state.getByText("Finished").waitFor();
    assert.match(await state.innerText(), told);
    const [ended] = await service.search({ session_id: session });
    assert.deepEqual([ended.status.type, ended.status.reason.type], ["client_finished", reason]);
    await page.reload();
    await state.getByText(told).waitFor();
    await page.goto(new URL("/sessions?status=client_finished", retinker.consoleUrl).href);
    await row(page, session).waitFor();
    assert.match(await row(page, session).innerText(), told);
    await row(page, session).getByRole("link", { name: `run of ${reason}` }).click();
    await page.locator('[data-testid="run-session"][data-status="client_finished"]').waitFor();
    const known = byTestId(page, "evidence").getByText("finished the session");
    assert.match(await known.innerText(), new RegExp(reason));
  }
  assert.deepEqual(page.problems, []);
});

test("what was done with a session is told as done, though how it stands then cannot be read", async (t) => {
  const { retinker: up, service } = await start(t);
  const session = await service.session({ display_name: "to be moved", project_id: "attic" });
  const proxy = await Misbehaving.start(t, up.serviceUrl);
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.goto(new URL(`/sessions/${session}`, retinker.consoleUrl).href);
  await byTestId(page, "assign-project").click();
  // From now on it is told of no session.
  proxy.answers(/^GET \/api\/v1\/sessions\/|^POST \/api\/v1\/sessions\/search$/, () => undefined);
  await byTestId(page, "project-id").fill("cellar");
  await byTestId(page, "confirm").click();
  await byTestId(page, "session-dialog").waitFor({ state: "hidden" });
  await byTestId(page, "assign-undo").getByText("Undo: back to attic").waitFor();
  assert.equal((await service.search({ session_id: session }))[0].project_id, "cellar");
  await byTestId(page, "finish-session").click();
  await byTestId(page, "confirm").click();
  await byTestId(page, "session-dialog").waitFor({ state: "hidden" });
  assert.equal((await service.search({ session_id: session }))[0].status.type, "client_finished");
  // What is shown says that it was read before.
  await page.locator('[data-testid="banner-problem"]').getByText("What is shown below is what was read before.").waitFor();
  const { body } = await retinker.host("activity");
  assert.deepEqual(body.acts.map((act) => act.problem ?? null), [null, null]);
  assert.deepEqual(page.problems.filter((problem) => !/Failed to load resource/.test(problem)), []);
});

test("what the host's sessions are asked wrongly is refused in a sentence", async (t) => {
  const { retinker, service } = await start(t);
  const session = await service.session();
  const json = { method: "POST", headers: { "content-type": "application/json" } };
  const refused = async (path, options) => {
    const { status, body } = await retinker.host(path, options);
    assert.ok(body.message.length > 10, JSON.stringify(body));
    return [status, body.code];
  };
  assert.deepEqual(await refused("sessions?status=purple"), [400, "bad_request"]);
  assert.deepEqual(await refused("sessions/nobody"), [404, "session_not_found"]);
  assert.deepEqual(
    await refused(`sessions/${session}/finish`, { ...json, body: '{"reason":"bored"}' }),
    [400, "bad_request"],
  );
  assert.deepEqual(
    await refused("sessions/nobody/finish", { ...json, body: '{"reason":"success"}' }),
    [404, "session_not_found"],
  );
  assert.deepEqual(
    await refused(`sessions/${session}/project`, { ...json, body: '{"project_id":" "}' }),
    [400, "bad_request"],
  );
  assert.deepEqual(await refused("usage?by=colour"), [400, "bad_request"]);
  const { body } = await retinker.host("projects");
  assert.deepEqual([body.offered, body.whole, body.projects[0].sessions], [true, true, 1]);
});

test("projects and samplers have pages of their own, from which one comes to sessions, runs and trials", async (t) => {
  const { retinker, service } = await start(t);
  const first = await service.session({ display_name: "first", project_id: "kitchen" });
  const second = await service.session({ project_id: "kitchen" });
  await service.session({ display_name: "of no project" });
  await service.post(`sessions/${second}/finish`, { reason: { type: "errored" } });
  const run = await service.run(first, 0, "a run");
  const saved = await service.call("save_weights_for_sampler", { model_id: run, path: "now", seq_id: 1 });
  const made = [];
  for (const [n, from] of [{ base_model: "retinker/nano-llama" }, { model_path: saved.path }].entries()) {
    made.push(await service.post("create_sampling_session", { session_id: first, sampling_session_seq_id: n, ...from }));
  }

  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.getByRole("link", { name: "Sessions" }).click();
  await row(page, second).waitFor();
  assert.equal(await row(page, second).getByText(second.slice(0, 8)).count(), 1, "what has no name is told once");
  await page.getByRole("link", { name: "Projects" }).click();
  assert.equal(await page.title(), "Projects · retinker");
  const kitchen = byTestId(page, "project-row").filter({ hasText: "kitchen" });
  await kitchen.waitFor();
  assert.deepEqual(await kitchen.locator("td").allInnerTexts(), ["2", "1", "0", "1", await kitchen.locator("td").last().innerText()]);
  await picture(page, "projects");
  // It is counted once, and again when somebody asks for it: the page does not say that it is live.
  await page.locator('[data-testid="freshness"][data-state="once"]').waitFor();
  await service.session({ project_id: "kitchen" });
  await byTestId(page, "refresh-now").click();
  await kitchen.locator("td").first().getByText("3", { exact: true }).waitFor();
  await byTestId(page, "projects-search").fill("KITCH");
  await page.waitForURL(/\/projects\?q=KITCH$/);
  const projects = byTestId(page, "project-row");
  await page.waitForFunction(() => document.querySelectorAll('[data-testid="project-row"]').length === 1);
  await byTestId(page, "projects-search").fill("cellar");
  await byTestId(page, "projects-no-match").waitFor();
  assert.equal(await projects.count(), 0);
  await byTestId(page, "projects-search").fill("");
  await kitchen.getByRole("link", { name: "kitchen" }).click();
  await page.getByText("3 sessions").first().waitFor();
  await page.goBack();

  await page.getByRole("link", { name: "Samplers" }).click();
  const samplers = byTestId(page, "samplers").locator(":scope > li");
  await byTestId(page, "samplers-total").getByText("2 samplers in the newest 4 sessions.").waitFor();
  await picture(page, "samplers");
  await byTestId(page, "samplers-search").fill("WEIGHTS/now");
  await byTestId(page, "samplers-total").getByText("1 sampler in the newest 4 sessions.").waitFor();
  assert.match(page.url(), /\/samplers\?q=WEIGHTS%2Fnow$/);
  assert.equal(await samplers.count(), 1);
  assert.match(await samplers.innerText(), new RegExp(saved.path));
  assert.equal(await samplers.getByRole("link", { name: "Try it" }).getAttribute("href"), `/try?path=${encodeURIComponent(saved.path)}`);
  await byTestId(page, "samplers-search").fill("nothing is called so");
  await byTestId(page, "samplers-total").getByText("No sampler is found in the newest 4 sessions.").waitFor();
  await page.reload();
  await byTestId(page, "samplers-total").getByText("No sampler is found in the newest 4 sessions.").waitFor();
  await byTestId(page, "samplers-search").fill("");
  await samplers.first().getByRole("link", { name: /^Session / }).click();
  await page.waitForURL((url) => url.pathname.startsWith("/sessions/"));
  await byTestId(page, "session-samplers").waitFor();
  await fitsIn(page, 380);

  // Of those of sessions that are not looked into, one is found by its id.
  for (let n = 0; n < 50; n += 1) await service.session({ display_name: `newer ${n}` });
  await page.goto(new URL(`/samplers?q=${encodeURIComponent(saved.path)}`, page.url()).href);
  await byTestId(page, "samplers-total").getByText("No sampler is found in the newest 50 sessions.").waitFor();
  await byTestId(page, "samplers-search").fill(made[0].sampling_session_id);
  await byTestId(page, "samplers-total").getByText("1 sampler of this id.").waitFor();
  assert.match(await samplers.innerText(), /nano-llama/);
  assert.deepEqual(page.problems, []);
});
