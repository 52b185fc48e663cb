// Models tried in the console: real samples, the same as the service gives to anybody else.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Misbehaving } from "./support/misbehaving.mjs";
import { Retinker, until } from "./support/retinker.mjs";
import { Service } from "./support/service.mjs";

const MODEL = "retinker/nano-llama";
const PROMPT = "Tell me";

async function start(t) {
  const retinker = await Retinker.up(t);
  const service = new Service(retinker.serviceUrl);
  const session = await service.session();
  const run = await service.run(session, 0, "to be tried");
  const saved = await service.call("save_weights_for_sampler", { model_id: run, seq_id: 1, path: "ready" });
  return { retinker, service, session, run, path: saved.path };
}

/** What the service's own API answers: a token is a byte here. */
async function drawn(service, from, params) {
  const session_id = await service.session();
  const { sampling_session_id } = await service.post("create_sampling_session", {
    session_id,
    sampling_session_seq_id: 0,
    ...from,
  });
  return service.call("asample", {
    sampling_session_id,
    seq_id: 0,
    num_samples: 1,
    prompt: { chunks: [{ type: "encoded_text", tokens: [...Buffer.from(PROMPT)] }] },
    sampling_params: params,
    prompt_logprobs: true,
  });
}

/** Asks for samples on the page; what the host answered. Read on its way: a page that reads an answer piece by piece leaves
 * nothing of it to the debugger. */
async function sampled(page, act) {
  const answered = new Promise((resolve, reject) => {
    const read = async (route) => {
      const response = await route.fetch();
      resolve({ status: response.status(), body: await response.json() });
      await route.fulfill({ response });
    };
    page.route("**/retinker/v1/samples", (route) => read(route).catch(reject), { times: 1 });
  });
  await act();
  return answered;
}

test("samples are those of the service, with each token's score, and a seed gives the same again", async (t) => {
  const { retinker, service, path } = await start(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.getByRole("link", { name: "Try it" }).click();
  assert.equal(await page.title(), "Try it · retinker");
  const options = () =>
    byTestId(page, "try-sources").locator("option").evaluateAll((all) => all.map((option) => option.value));
  await until("what can be tried", async () => (await options()).includes(path));
  assert.ok((await options()).includes(MODEL), "base models are offered too");

  await byTestId(page, "try-run").click();
  assert.match(await byTestId(page, "try-refusal").innerText(), /Say what to sample from/);
  await byTestId(page, "try-source").fill(MODEL);
  await byTestId(page, "try-prompt").fill(PROMPT);
  await byTestId(page, "try-max-tokens").fill("24");
  await byTestId(page, "try-seed").fill("7");
  await byTestId(page, "try-prompt-logprobs").check();
  const first = await sampled(page, () => byTestId(page, "try-run").click());
  assert.equal(first.status, 200, JSON.stringify(first.body));
  await page.locator('[data-testid="try-result"][data-state="done"]').waitFor();
  const text = await byTestId(page, "sample-tokens").innerText();

  const expected = await drawn(service, { base_model: MODEL }, { max_tokens: 24, seed: 7 });
  const [sequence] = expected.sequences;
  const [sample] = first.body.samples;
  assert.deepEqual(sample.tokens.map((token) => token.id), sequence.tokens);
  assert.deepEqual(sample.tokens.map((token) => token.logprob), sequence.logprobs, "to the last digit");
  assert.equal(sample.stop_reason, sequence.stop_reason);
  assert.deepEqual(first.body.prompt.map((token) => token.logprob ?? null), expected.prompt_logprobs);
  assert.equal(first.body.prompt.map((token) => token.text).join(""), PROMPT);

  await page.locator('[data-testid="try-result"] .sampled').last().locator("summary").click();
  await byTestId(page, "token-logprob").first().waitFor();
  const shown = await byTestId(page, "token-logprob").allInnerTexts();
  assert.deepEqual(
    shown.map((score) => Number(score.replace("−", "-"))),
    sequence.logprobs.map((score) => Math.round(score * 1000) / 1000 + 0),
  );
  await picture(page, "try");

  // By the keyboard: through the tokens, and the same again.
  await byTestId(page, "sample-tokens").focus();
  await page.keyboard.press("End");
  const last = sequence.tokens.length;
  const told = byTestId(page, "token-told").last();
  await until("the last token's score", async () => (await told.innerText()).startsWith(`Token ${last} of ${last}`));
  assert.match(await told.innerText(), new RegExp(`number ${sequence.tokens.at(-1)}, log-probability`));
  await byTestId(page, "try-prompt").focus();
  const second = await sampled(page, () => page.keyboard.press("Control+Enter"));
  assert.deepEqual(second.body.samples, first.body.samples, "a seed draws the same twice");
  await page.locator('[data-testid="try-result"][data-state="done"]').waitFor();
  assert.equal(await byTestId(page, "sample-tokens").innerText(), text);
  assert.equal(decodeURIComponent(new URL(page.url()).search), `?path=${MODEL}`, "the prompt is in no address");

  const sessions = await service.search({ display_name: "retinker console" });
  assert.equal(sessions.length, 1, "one session for all samples");
  assert.deepEqual([sessions[0].status.type, sessions[0].user_metadata.made_by], ["active", "retinker console"]);
  assert.deepEqual(page.problems, []);
});

test("two models side by side, several samples, and a session that has ended meanwhile", async (t) => {
  const { retinker, service, path } = await start(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.goto(new URL(`/try?path=${encodeURIComponent(path)}&with=${encodeURIComponent(MODEL)}`, page.url()).href);
  assert.equal(await byTestId(page, "try-source").inputValue(), path);
  assert.equal(await byTestId(page, "try-with").inputValue(), MODEL);
  await byTestId(page, "try-prompt").fill(PROMPT);
  await byTestId(page, "try-samples").fill("2");
  await byTestId(page, "try-temperature").fill("0,5");
  const both = async () => {
    await byTestId(page, "try-run").click();
    await page.locator('[data-testid="try-result"][data-state="done"]').waitFor();
    await page.locator('[data-testid="try-result-with"][data-state="done"]').waitFor();
    assert.equal(await byTestId(page, "sample-tokens").count(), 4);
  };
  await both();
  await picture(page, "try-two");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture(page, "try-two-dark");

  const [session] = await service.search({ display_name: "retinker console" });
  await service.post(`sessions/${session.session_id}/finish`, { reason: { type: "success" } });
  await both();
  const open = await service.search({ display_name: "retinker console", statuses: [{ type: "active" }] });
  assert.equal(open.length, 1, "another session took its place");

  await page.setViewportSize({ width: 380, height: 800 });
  await picture(page, "try-narrow");
  const wider = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  assert.equal(wider, false, "nothing is cut off on a narrow screen");

  // Whoever stops the host ends the session too.
  await retinker.kill("SIGTERM");
  assert.deepEqual(page.problems.filter((problem) => !/ERR_/.test(problem)), []);
});

test("what cannot be sampled is told, tokens can be given by number, and a sample can be stopped", async (t) => {
  const { retinker, run, path } = await start(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.goto(new URL("/try", page.url()).href);
  const failed = page.locator('[data-testid="try-result"][data-state="failed"]');
  const ask = async (source, prompt) => {
    await byTestId(page, "try-source").fill(source);
    await byTestId(page, "try-prompt").fill(prompt);
    return sampled(page, () => byTestId(page, "try-run").click());
  };
  let answer = await ask(`tinker://${run}/sampler_weights/none`, PROMPT);
  assert.deepEqual([answer.status, answer.body.code], [422, "sample_refused"]);
  await failed.waitFor();
  assert.match(await failed.innerText(), /The service refuses this/);
  answer = await ask(MODEL, "x".repeat(3000));
  assert.equal(answer.body.code, "sample_refused", "longer than the model's context");
  await byTestId(page, "try-temperature").fill("warm");
  answer = await ask(MODEL, PROMPT);
  assert.deepEqual([answer.status, answer.body.code], [400, "bad_request"]);
  await until("the sentence", async () => /temperature must be a number/.test(await failed.innerText()));
  await byTestId(page, "try-temperature").fill("0");

  await byTestId(page, "try-numbers").check();
  answer = await ask(path, "84, 101 108");
  assert.equal(answer.status, 200);
  assert.deepEqual(answer.body.prompt.map((token) => token.text), ["T", "e", "l"]);
  await byTestId(page, "try-prompt").fill("many");
  await byTestId(page, "try-run").click();
  assert.match(await byTestId(page, "try-refusal").innerText(), /whole numbers/);

  // Held back by the network, as by a slow service.
  await page.route("**/retinker/v1/samples", () => {});
  await byTestId(page, "try-prompt").fill("84");
  await byTestId(page, "try-run").click();
  await page.locator('[data-testid="try-result"][data-state="running"]').waitFor();
  assert.equal(await byTestId(page, "try-run").isDisabled(), true);
  await byTestId(page, "try-stop").click();
  await byTestId(page, "try-result").waitFor({ state: "detached" });
  assert.equal(await byTestId(page, "try-run").isDisabled(), false);
  assert.deepEqual(page.problems.filter((problem) => !/4\d\d \(/.test(problem)), []);
});

test("what is written stays while one looks elsewhere, and a page that is closed takes its samples back", async (t) => {
  const { retinker: up, path } = await start(t);
  const proxy = await Misbehaving.start(t, up.serviceUrl);
  const [asked, cancelled] = [proxy.hears(/\/asample$/), proxy.hears(/\/cancel_future$/)];
  const retinker = await proxy.console(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  const open = () => page.goto(new URL(`/try?path=${encodeURIComponent(path)}`, retinker.consoleUrl).href);
  await open();
  await byTestId(page, "try-prompt").fill(PROMPT);
  await byTestId(page, "try-seed").fill("1234567890123");
  await byTestId(page, "try-max-tokens").fill("2048");
  await byTestId(page, "try-prompt-logprobs").check();
  await page.getByRole("link", { name: "Sessions" }).click();
  await page.waitForURL(/\/sessions$/);
  await page.goBack();
  assert.equal(await byTestId(page, "try-prompt").inputValue(), PROMPT);
  assert.equal(await byTestId(page, "try-seed").inputValue(), "1234567890123", "all of it");
  assert.equal(await byTestId(page, "try-max-tokens").inputValue(), "2048");
  assert.equal(await byTestId(page, "try-prompt-logprobs").isChecked(), true);
  // The answer to the question for the result is on its way for as long as the page is there.
  const go = proxy.holdsBack(/\/retrieve_future$/, 0);
  await byTestId(page, "try-run").click();
  await until("the sample to be asked for", () => asked.length > 0);
  assert.equal(cancelled.length, 0);
  await page.close();
  await until("the sample to be taken back", () => cancelled.length > 0);
  go();
  const act = await until("what became of it", async () => {
    const { body } = await retinker.host("activity");
    return body.acts.find((act) => act.ended_at);
  });
  assert.deepEqual([act.what, act.subjects], ["Try models", [path]]);
  assert.match(act.problem, /taken back/);
});
