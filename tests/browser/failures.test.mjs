// Bad input and failure: each gives one clear message that names the thing and the way out, and the console never
// shows an empty list where it means "could not load".
import assert from "node:assert/strict";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, openRun, picture } from "./support/browser.mjs";
import { Retinker, freePort, lastingUp, runToEnd, temporaryDir, until } from "./support/retinker.mjs";
import { Training } from "./support/train.mjs";

/** A server that answers every request in one bad way. */
async function badServer(t, answer) {
  const server = createServer(answer);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

const BAD_ANSWERS = {
  "answers 500": [(_, response) => response.writeHead(500).end('{"detail":"the database is gone"}'), /500|database is gone/],
  "answers HTML": [
    (_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<html><body>Welcome</body></html>"),
    /HTML|not JSON/i,
  ],
  "answers half a body": [
    (_, response) => {
      response.writeHead(200, { "content-type": "application/json", "content-length": "5000" });
      response.write('{"training_runs":[');
      setTimeout(() => response.destroy(), 20);
    },
    /broke|closed|incomplete|half|body/i,
  ],
  "never answers": [() => {}, /time|answer|slow/i],
};

for (const [what, [answer, expected]] of Object.entries(BAD_ANSWERS)) {
  test(`a service that ${what} is told, never shown as an empty list`, async (t) => {
    const base = await badServer(t, answer);
    const args = ["console", "--base-url", base, "--port", "0", "--data-dir", await temporaryDir(t)];
    const retinker = await Retinker.start(t, args);
    const page = await openPage(await openBrowser(t), retinker.consoleUrl);
    await byTestId(page, "banner-problem").first().waitFor({ timeout: 120_000 });
    const text = await byTestId(page, "banner-problem").first().innerText();
    assert.match(text, expected);
    assert.ok(!/0 of 0 runs|no runs yet/i.test(await page.locator("main").innerText()), "it does not claim an empty list");
    await picture(page, `service-${what.replaceAll(" ", "-")}`);
  });
}

test("a service that is down is told, and the console goes on when it comes back", async (t) => {
  const dataDir = await temporaryDir(t);
  const [port, servicePort] = [await freePort(), await freePort()];
  const args = ["console", "--base-url", `http://127.0.0.1:${servicePort}`, "--port", `${port}`, "--data-dir", dataDir];
  const retinker = await Retinker.start(t, args);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "banner-problem").first().waitFor({ timeout: 60_000 });
  assert.match(await byTestId(page, "banner-problem").first().innerText(), new RegExp(`127.0.0.1:${servicePort}`));
  await picture(page, "service-down");
  const upArgs = ["up", "--no-demo", "--port", "0", "--service-port", `${servicePort}`, "--data-dir", await temporaryDir(t)];
  await Retinker.start(t, upArgs);
  await byTestId(page, "banner-problem").first().waitFor({ state: "detached", timeout: 60_000 });
});

test("a run that does not exist, a damaged checkpoint, an expired one", async (t) => {
  const dataDir = await temporaryDir(t);
  const args = await lastingUp(t, dataDir);
  let retinker = await Retinker.start(t, args);
  const often = ["--steps", "2000", "--save-every", "4"];
  const victim = Training.create(t, retinker.serviceUrl, { name: "victim" }, ...often);
  await victim.steps(10);
  await retinker.kill("SIGKILL");
  victim.stop();
  const run = victim.attachment.model_id;

  // Half a byte of the newest checkpoint's optimizer state is turned over on the disk.
  const files = (await readdir(dataDir, { recursive: true })).filter((name) => name.endsWith("optimizer.safetensors"));
  assert.ok(files.length >= 2, `checkpoints are on the disk: ${files}`);
  const ages = await Promise.all(files.map(async (name) => (await stat(join(dataDir, name))).mtimeMs));
  const newest = join(dataDir, files[ages.indexOf(Math.max(...ages))]);
  const bytes = await readFile(newest);
  bytes[bytes.length - 5] ^= 0x0f;
  await writeFile(newest, bytes);

  retinker = await Retinker.start(t, args);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await openRun(page, run, "poisoned");
  await byTestId(page, "restore-button").click();
  await byTestId(page, "plan-summary").waitFor();
  const dialog = await byTestId(page, "restore-dialog").innerText();
  assert.match(dialog, /damaged|checksum/i, "the damaged checkpoint is named");
  await picture(page, "damaged-checkpoint");

  // Every checkpoint expires: there is nothing left to restore from, and the page says so.
  const { checkpoints } = await retinker.service(`training_runs/${run}/checkpoints`);
  for (const { checkpoint_id: id } of checkpoints) {
    const url = `${retinker.serviceUrl}/api/v1/training_runs/${run}/checkpoints/${id}/ttl`;
    const answer = await fetch(url, {
      method: "PUT",
      headers: { "content-type": "application/json", "x-api-key": "tml-test" },
      body: JSON.stringify({ ttl_seconds: 1 }),
    });
    assert.ok(answer.ok, await answer.text());
  }
  await until("the checkpoints to expire", async () => {
    const plan = await retinker.host("plans", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ run_id: run }),
    });
    return plan.body.none && /expired|no .*checkpoint/i.test(JSON.stringify(plan.body.none));
  }, 30);

  await page.goto(new URL("/runs/no-such-run", retinker.consoleUrl).href);
  await byTestId(page, "banner-problem").first().waitFor();
  assert.match(await byTestId(page, "banner-problem").first().innerText(), /no-such-run/);
  await picture(page, "no-such-run");
});

test("a locked or unusable data directory, and a busy port, stop the start with one sentence", async (t) => {
  const dataDir = await temporaryDir(t);
  const retinker = await Retinker.start(t, ["up", "--no-demo", "--port", "0", "--service-port", "0", "--data-dir", dataDir]);
  const expect = async (args, words) => {
    const { code, stderr } = await runToEnd(args);
    assert.equal(code, 1, stderr);
    const sentences = stderr.split("\n").filter((line) => line.startsWith("error: "));
    assert.equal(sentences.length, 1, stderr);
    for (const word of words) assert.ok(sentences[0].includes(word), `${sentences[0]} names ${word}`);
  };
  const free = ["--port", "0", "--service-port", "0"];
  await expect(["up", ...free, "--data-dir", dataDir], [dataDir, "--data-dir"]);
  await expect(["up", ...free, "--data-dir", "/dev/null/retinker"], ["/dev/null/retinker", "--data-dir"]);
  const servicePort = new URL(retinker.serviceUrl).port;
  const consolePort = new URL(retinker.consoleUrl).port;
  const other = ["--data-dir", await temporaryDir(t)];
  await expect(["up", "--port", "0", "--service-port", servicePort, ...other], [servicePort, "--service-port"]);
  await expect(["up", "--port", consolePort, "--service-port", "0", ...other], [consolePort, "--port"]);
  await expect(["console", "--base-url", "tinker.example", "--port", "0", ...other], ["tinker.example", "--base-url"]);
});

test("the release binary serves the real console, guarded and compressed", async (t) => {
  const retinker = await Retinker.up(t);
  const origin = new URL(retinker.consoleUrl).origin;
  const response = await fetch(`${origin}/`, { headers: { "accept-encoding": "br" } });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-encoding"), "br");
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  assert.match(response.headers.get("content-security-policy"), /frame-ancestors 'none'/);
  const html = await response.text();
  const wasm = html.match(/[\w./-]+_bg\.wasm/)?.[0];
  assert.ok(wasm, `the page loads wasm: ${html.slice(0, 400)}`);
  const module = await fetch(new URL(wasm, `${origin}/`));
  assert.equal(module.headers.get("content-type"), "application/wasm");
  assert.match(module.headers.get("cache-control"), /immutable/);
});
