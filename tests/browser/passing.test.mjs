// What passes between the console and its service: how much of an archive has come is told while it comes, and samples are
// asked for as somebody has typed.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Retinker, until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

const MODEL = "retinker/nano-llama";

/** A service with a checkpoint, one that stands before it, and a page of the console on that. */
async function start(t) {
  const behind = await Retinker.up(t);
  const service = new Service(behind.serviceUrl);
  const run = await service.run(await service.session(), 0, "to be passed on");
  const { path } = await service.call("save_weights", { model_id: run, seq_id: 1, path: "whole" });
  const proxy = await Misbehaving.start(t, behind.serviceUrl);
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  return { behind, proxy, retinker, path, page };
}

/** Begins the download of the only checkpoint; the browser's side of it, and the host's id for it. */
async function download(page) {
  await byTestId(page, "more").click();
  const answered = new Promise((resolve, reject) => {
    const read = async (route) => {
      const response = await route.fetch();
      resolve((await response.json()).id);
      await route.fulfill({ response });
    };
    page.route("**/checkpoints/downloads", (route) => read(route).catch(reject), { times: 1 });
  });
  const click = byTestId(page, "download").click();
  const [begun, id] = await Promise.all([page.waitForEvent("download"), answered, click]);
  return { begun, id };
}

test("how much of a download has passed is told while it is under way, and when it breaks off", async (t) => {
  const { behind, proxy, retinker, path, page } = await start(t);
  const { checkpoints } = await behind.service("checkpoints?limit=100");
  const size = checkpoints.find((one) => one.tinker_path === path).size_bytes;
  const [run, rest] = path.replace("tinker://", "").split(/\/(.*)/);
  const address = `${behind.serviceUrl}/api/v1/training_runs/${run}/checkpoints/${rest}/archive`;
  const own = await (await fetch(address, { headers: { "x-api-key": "tml-test" } })).arrayBuffer();
  await page.getByRole("link", { name: "Checkpoints" }).click();
  await byTestId(page, "checkpoint-item").waitFor();

  const FILES = /^GET .*\/files\//;
  const go = proxy.holdsBack(FILES, 12_345);
  const { begun, id } = await download(page);
  const running = page.locator('[data-testid="download-state"][data-state="running"]');
  await running.getByText(/^12 KB of about /).waitFor();
  const { body } = await retinker.host(`checkpoints/downloads/${id}`);
  assert.deepEqual([body.received, body.about, body.done, body.file], [12_345, size, false, begun.suggestedFilename()]);
  assert.deepEqual(await running.locator("progress").evaluate((bar) => [bar.value, bar.max]), [12_345, size]);
  assert.equal(await running.locator("progress").getAttribute("aria-label"), `Download of ${begun.suggestedFilename()}`);
  await picture(page, "download-under-way");
  // It goes on while one looks elsewhere, and is told on the way back.
  await page.getByRole("link", { name: "Activity" }).click();
  await page.waitForURL(/activity/);
  await page.getByRole("link", { name: "Checkpoints" }).click();
  await running.getByText(/^12 KB of about /).waitFor();
  go();
  const done = page.locator('[data-testid="download-state"][data-state="done"]');
  await done.waitFor();
  assert.match(await done.innerText(), /All of it was passed to the browser/);
  assert.equal(await done.locator("progress").count(), 0);
  assert.ok((await readFile(await begun.path())).equals(Buffer.from(own)), "to the byte");
  assert.equal((await retinker.host(`checkpoints/downloads/${id}`)).body.received, own.byteLength);
  await byTestId(page, "download-close").click();

  await t.test("one that is stopped ends there and then, and leaves no file that looks whole", async () => {
    proxy.held = [];
    proxy.holdsBack(FILES, 3_456);
    const { begun: stopped, id } = await download(page);
    await running.getByText(/^3\.5 KB of about /).waitFor();
    await byTestId(page, "download-stop").click();
    const ended = page.locator('[data-testid="download-state"][data-state="failed"]');
    await ended.getByText("It broke off after 3.5 KB. It was stopped here.").waitFor();
    assert.equal(await byTestId(page, "download-stop").count(), 0);
    assert.notEqual(await stopped.failure(), null, "the browser's file is no whole one");
    assert.equal((await retinker.host(`checkpoints/downloads/${id}`)).body.problem.code, "download_stopped");
    await byTestId(page, "download-close").click();
  });

  await t.test("one that breaks off says after how much", async () => {
    proxy.held = [];
    proxy.holdsBack(FILES, 2_345);
    const { begun: second } = await download(page);
    await running.getByText(/^2\.3 KB of about /).waitFor();
    await proxy.misbehave("down");
    const failed = page.locator('[data-testid="download-state"][data-state="failed"]');
    await failed.getByText(/^It broke off after 2\.3 KB\. /).waitFor({ timeout: 60_000 });
    assert.notEqual(await second.failure(), null, "the browser's file is no whole one");
    await proxy.misbehave(null);
  });
  assert.deepEqual(page.problems, []);
});

test("samples are asked of the service for as somebody has typed", async (t) => {
  const { proxy, page } = await start(t);
  const asked = proxy.hears(/^POST \/api\/v1\/asample$/);
  await page.goto(new URL(`/try?path=${encodeURIComponent(MODEL)}`, page.url()).href);
  const type = async (fields) => {
    for (const [field, text] of Object.entries(fields)) await byTestId(page, `try-${field}`).fill(text);
  };
  /** What arrives at the service when these samples are asked for. */
  const arrives = async () => {
    asked.length = 0;
    await byTestId(page, "try-run").click();
    const refusal = () => byTestId(page, "try-refusal").innerText();
    await until("the request", async () => asked.length > 0 || (await refusal()) !== "");
    assert.equal(await refusal(), "");
    await page.locator('[data-testid="try-result"][data-state="done"]').waitFor();
    assert.equal(asked.length, 1);
    return asked[0];
  };

  await t.test("every number arrives", async () => {
    await type({ prompt: "Tell me", "max-tokens": "13", samples: "3", temperature: "0.7" });
    await type({ "top-p": "0,85", "top-k": "40", seed: "12345" });
    const { sampling_params: params, num_samples: samples, prompt } = await arrives();
    const { max_tokens, temperature, top_p, top_k, seed } = params;
    assert.deepEqual({ max_tokens, samples, temperature, top_p, top_k, seed }, {
      max_tokens: 13, samples: 3, temperature: 0.7, top_p: 0.85, top_k: 40, seed: 12345,
    });
    assert.deepEqual(prompt.chunks.flatMap((chunk) => chunk.tokens), [...Buffer.from("Tell me")]);
    assert.equal(await byTestId(page, "sample-tokens").count(), 3);
  });

  await t.test("a temperature of nothing draws the same without a seed", async () => {
    await type({ temperature: "0", "top-p": "1", "top-k": "1", seed: "", samples: "2" });
    const { sampling_params: params } = await arrives();
    assert.deepEqual([params.temperature, params.top_p, params.top_k, params.seed ?? null], [0, 1, 1, null]);
    const [one, other] = await byTestId(page, "sample-tokens").allInnerTexts();
    assert.equal(one, other);
  });

  await t.test("what is left empty is asked for as the page says", async () => {
    await page.getByText("Empty fields mean: temperature 1, all tokens, any seed.").waitFor();
    await type({ "max-tokens": "", samples: "", temperature: "", "top-p": "", "top-k": "", seed: "" });
    const { sampling_params: params, num_samples: samples } = await arrives();
    const { temperature, top_p, top_k, seed } = params;
    assert.deepEqual([temperature, top_p, top_k, seed ?? null, samples], [1, 1, -1, null, 1]);
    assert.ok(params.max_tokens >= 1);
  });

  await t.test("what cannot be asked for is told, and nothing is asked", async () => {
    asked.length = 0;
    const refused = async (fields, told) => {
      await type({ ...fields });
      await byTestId(page, "try-run").click();
      await page.getByRole("alert").getByText(told).first().waitFor();
    };
    await refused({ "max-tokens": "2.5" }, "Most tokens must be a whole number.");
    await refused({ "max-tokens": "64", "top-k": "few" }, "Top-k must be a whole number.");
    await refused({ "top-k": "", "top-p": "1.5" }, "top_p must be a number from 0 to 1.");
    assert.deepEqual(asked, []);
    await type({ "top-p": "", samples: "1" });
  });

  await t.test("a whole number that is large or below zero is not said to be none", async () => {
    const numbers = [["seed", "5000000000", "seed"], ["seed", "-7", "seed"], ["top-k", "-1", "top_k"]];
    for (const [field, text, arrived] of numbers) {
      await type({ [field]: text });
      assert.equal((await arrives()).sampling_params[arrived], Number(text));
      await type({ [field]: "" });
    }
  });
  // What is refused is answered with a status for that, which browsers report.
  assert.deepEqual(page.problems.filter((problem) => !/400/.test(problem)), []);
});
