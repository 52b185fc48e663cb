// What the page of a run tells of it: facts, labels, session, samplers, checkpoints, and code that goes on from one.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openPage, openBrowser, picture, runRow } from "./support/browser.mjs";
import { Retinker } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

const MODEL = "retinker/nano-llama";
const DAY = 24 * 3600;

/** A service with a run that has a checkpoint of every kind, and its page; the clipboard may be used there. */
async function start(t) {
  const retinker = await Retinker.up(t);
  const service = new Service(retinker.serviceUrl);
  const session = await service.session({ display_name: "Kitchen sweep", user_metadata: { team: "x" }, project_id: "kitchen" });
  const run = (
    await service.call("create_model", {
      session_id: session,
      model_seq_id: 0,
      base_model: MODEL,
      lora_config: { rank: 4, seed: 7 },
      user_metadata: { name: "told", dataset: "<i>recipes</i>" },
    })
  ).model_id;
  const save = async (path, number, more) =>
    (await service.call(path, { model_id: run, seq_id: number, ...more })).path;
  const kept = await save("save_weights", 1, { path: "kept" });
  const passing = await save("save_weights", 2, { path: "passing", ttl_seconds: 3 * DAY, user_metadata: { step: "12" } });
  const ready = await save("save_weights_for_sampler", 3, { path: "ready" });
  const sampler = async (number, of) =>
    (await service.post("create_sampling_session", { session_id: session, sampling_session_seq_id: number, ...of }))
      .sampling_session_id;
  const samplers = [await sampler(0, { base_model: MODEL }), await sampler(1, { model_path: ready })];
  const page = await openPage(await openBrowser(t), retinker.consoleUrl, {
    permissions: ["clipboard-read", "clipboard-write"],
  });
  await runRow(page, run, "healthy").locator("a").first().click();
  await byTestId(page, "checkpoints-table").waitFor();
  return { retinker, session, run, paths: { kept, passing, ready }, samplers, page };
}

/** The value beside a name. */
const fact = (page, id, name) =>
  byTestId(page, id).locator("dt").filter({ hasText: new RegExp(`^${name}$`) }).locator("xpath=following-sibling::dd[1]");

/** What a copy button puts into the clipboard. */
async function copied(page, button) {
  await page.evaluate(() => navigator.clipboard.writeText("nothing yet"));
  await button.click();
  await button.getByText("Copied").waitFor();
  return page.evaluate(() => navigator.clipboard.readText());
}

test("facts, labels, session and samplers of a run are the service's", async (t) => {
  const { retinker, session, run, paths, samplers, page } = await start(t);
  const known = await retinker.service(`training_runs/${run}`);
  assert.equal(await page.title(), "told · retinker");
  const told = async (id, name) => (await fact(page, id, name).innerText()).trim();
  assert.equal(await told("run-facts", "Base model"), MODEL);
  assert.equal(await told("run-facts", "Adapter"), "LoRA, rank 4");
  assert.equal(await told("run-facts", "Owner"), known.model_owner || "not told");
  assert.equal(await copied(page, fact(page, "run-facts", "Run").getByRole("button")), run);
  const asked = await fact(page, "run-facts", "Last request").locator("time").getAttribute("datetime");
  assert.equal(Date.parse(asked), Date.parse(known.last_request_time));

  assert.deepEqual(await byTestId(page, "run-labels").locator("dt").allInnerTexts(), ["dataset", "name"]);
  assert.equal(await told("run-labels", "dataset"), "<i>recipes</i>", "a label is no markup");
  assert.equal(await copied(page, fact(page, "run-labels", "dataset").getByRole("button")), "<i>recipes</i>");

  await byTestId(page, "run-session").waitFor();
  assert.equal(await byTestId(page, "run-session").getAttribute("data-status"), "active");
  assert.equal(await told("run-session", "Name"), "Kitchen sweep");
  assert.equal(await told("run-session", "Project"), "kitchen");
  assert.equal(await told("run-session", "Runs"), "1");
  assert.equal(await told("run-session", "Samplers"), "2");
  const listed = byTestId(page, "run-samplers").locator("li");
  assert.equal(await listed.count(), 2);
  for (const [id, of] of [[samplers[0], /of the base model/], [samplers[1], /of ready/]]) {
    const row = listed.filter({ has: page.locator(`[title="${id}"]`) });
    assert.match(await row.innerText(), of);
    assert.equal(await copied(page, row.getByRole("button")), id);
  }
  await picture(page, "facts");
  await byTestId(page, "run-samplers").getByRole("link", { name: "Try it" }).click();
  await page.waitForURL((url) => url.pathname === "/try" && url.searchParams.get("path") === paths.ready);
  await page.goBack();
  await fact(page, "run-session", "Session").getByRole("link").click();
  await page.waitForURL((url) => url.pathname === `/sessions/${session}`);
  await byTestId(page, "session-runs").getByRole("link", { name: "told" }).waitFor();
  assert.deepEqual(page.problems, []);
});

test("checkpoints of a run have kind, size and end, and a path to copy", async (t) => {
  const { retinker, run, paths, page } = await start(t);
  const { checkpoints } = await retinker.service(`training_runs/${run}/checkpoints`);
  const rows = byTestId(page, "checkpoint-row");
  assert.equal(await rows.count(), 3);
  const drawn = await rows.evaluateAll((all) => all.map((row) => row.dataset.path));
  assert.deepEqual(drawn, [paths.ready, paths.passing, paths.kept], "newest first");
  for (const [path, kind, end, usable] of [
    [paths.kept, "", /^never$/, /^yes$/],
    [paths.passing, "", /^in (3 d|2 d 2\d h)/, /^yes$/],
    [paths.ready, "for sampling", /^never$/, /sampl/],
  ]) {
    const own = checkpoints.find((one) => one.tinker_path === path);
    const row = page.locator(`[data-testid="checkpoint-row"][data-path="${path}"]`);
    const cell = async (label) => (await row.locator(`td[data-label="${label}"]`).innerText()).trim();
    assert.match(await row.locator("th").innerText(), new RegExp(`${path.split("/").at(-1)}[^]*${kind}`));
    assert.equal((await row.locator("th").innerText()).includes("for sampling"), kind !== "");
    const [size, unit] = (await cell("size")).split(" ");
    const bytes = Number(size) * { B: 1, KB: 1e3, MB: 1e6 }[unit];
    assert.ok(Math.abs(bytes - own.size_bytes) <= own.size_bytes * 0.06, `${size} ${unit} of ${own.size_bytes}`);
    assert.match(await cell("expires"), end);
    if (own.expires_at) {
      const until = await row.locator('td[data-label="expires"] time').getAttribute("datetime");
      assert.equal(Date.parse(until), Date.parse(own.expires_at));
    }
    assert.match((await row.locator(".c-usable").innerText()).trim(), usable);
    assert.equal(await copied(page, row.getByRole("button", { name: "Copy the checkpoint's path" })), path);
  }
  const labels = page.locator(`[data-path="${paths.passing}"] .checkpoint-labels`);
  assert.equal(await labels.innerText(), "step=12");
  await picture(page, "facts-checkpoints");
  assert.deepEqual(page.problems, []);
});

test("each piece of code goes on from the newest checkpoint that can be gone on from", async (t) => {
  const { retinker, paths, page } = await start(t);
  const tabs = page.locator(".snippets").getByRole("tab");
  assert.deepEqual(await tabs.allInnerTexts(), ["Python", "Rust", "TypeScript", "Elixir", "Cookbook"]);
  const panel = page.locator(".snippets").getByRole("tabpanel");
  await tabs.first().focus();
  for (const tab of await tabs.all()) {
    assert.equal(await tab.getAttribute("aria-selected"), "true");
    assert.equal(await panel.count(), 1, "the others are hidden");
    const code = await panel.locator("code").textContent();
    assert.ok(code.includes(paths.passing), code);
    assert.ok(code.includes(retinker.serviceUrl), code);
    assert.ok(!code.includes(paths.ready) && !code.includes(paths.kept), code);
    assert.equal(await copied(page, panel.getByRole("button", { name: "Copy the code" })), code);
    await tab.focus();
    await page.keyboard.press("ArrowRight");
  }
  assert.equal(await tabs.first().getAttribute("aria-selected"), "true", "round to the first");
  assert.deepEqual(page.problems, []);
});
