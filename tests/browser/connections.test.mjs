// Several services behind one console: each page shows one, says which, and keeps to it; and a newcomer's first page leads
// to a first run.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { Retinker, freePort, runToEnd, temporaryDir, until } from "./support/retinker.mjs";
import { Training } from "./support/train.mjs";

/** A service that answers everything with this status, and counts who asked. */
async function refusing(t, status) {
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(request.headers["x-api-key"]);
    response.writeHead(status, { "content-type": "application/json" }).end('{"detail":"no"}');
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, seen };
}

/** A run that is made, trained for some steps and saved. */
const train = (t, url, name) => Training.create(t, url, { name }, "--steps", "4", "--save-every", "4").finish();

/** Two services with a run each, and a console before both, one that refuses its key and one that is not there. */
async function fourConnections(t) {
  const other = await Retinker.up(t);
  const refuses = await refusing(t, 401);
  const gone = `http://127.0.0.1:${await freePort()}`;
  const retinker = await Retinker.upWith(
    t,
    { TINKER_API_KEY_LAB: "tml-of-the-lab", TINKER_API_KEY_LOCKED: "tml-wrong", TINKER_API_KEY_GONE: "tml-gone" },
    "--connection", `lab=${other.serviceUrl}`, "--connection", `locked=${refuses.url}`,
    "--connection", `keyless=${refuses.url}/keyless`, "--connection", `gone=${gone}`,
  );
  await train(t, retinker.serviceUrl, "alpha");
  await train(t, other.serviceUrl, "beta");
  return { retinker, other, refuses, gone };
}

const at = (retinker, path) => new URL(path, retinker.consoleUrl).href;
const names = (page) => page.locator('[data-testid="run-row"]').allInnerTexts();
const shows = (page, text) => page.locator('[data-testid="run-row"]', { hasText: text }).waitFor();

/** Links of the page that would lead away from the connection that it shows. */
const strays = (page) =>
  page.evaluate(() => {
    const links = [...document.querySelectorAll("a[href]")].map((a) => new URL(a.href));
    const own = links.filter((url) => url.origin === location.origin && !url.hash);
    return own.filter((url) => !url.searchParams.has("on")).map((url) => url.href);
  });

const wide = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

test("connections are switched in the header, and a page shows one alone", async (t) => {
  const { retinker, other, refuses, gone } = await fourConnections(t);
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl);
  await shows(page, "alpha");
  assert.equal(new URL(page.url()).searchParams.get("on"), null, "the first needs no name");

  await byTestId(page, "connections-open").focus();
  await page.keyboard.press("Enter");
  const line = (name) => page.locator(`[data-testid="connections"] [data-testid="connection"][data-name="${name}"]`);
  await line("lab").waitFor();
  assert.equal(await line("local").getAttribute("aria-current"), "true");
  assert.equal(await line("local").getAttribute("data-state"), "ok");
  assert.equal(await line("lab").getAttribute("data-state"), "unasked");
  assert.match(await line("lab").innerText(), new RegExp(other.serviceUrl));
  assert.deepEqual(refuses.seen, [], "what nobody looks at is not asked");
  await picture(page, "connections-menu");
  await page.keyboard.press("Escape");
  await line("lab").waitFor({ state: "hidden" });

  await byTestId(page, "connections-open").click();
  await line("lab").click();
  await page.waitForURL(/on=lab/);
  await shows(page, "beta");
  assert.ok(!(await names(page)).some((row) => row.includes("alpha")), "nothing of the other is left");
  assert.match(await byTestId(page, "service").innerText(), new RegExp(other.serviceUrl));
  assert.match(await page.title(), /· lab ·/);
  assert.deepEqual(await strays(page), []);

  // Every way on keeps to it: a run, its way back, the filter, the other pages, a reload.
  await page.locator('[data-testid="run-row"] a').first().click();
  await page.waitForURL(/\/runs\/.*on=lab/);
  await page.locator("h1", { hasText: "beta" }).waitFor();
  assert.deepEqual(await strays(page), []);
  await page.getByRole("link", { name: "Activity" }).click();
  await page.waitForURL(/\/activity\?on=lab/);
  await byTestId(page, "no-restores").waitFor();
  assert.deepEqual(await strays(page), []);
  await page.reload();
  await page.waitForURL(/\/activity\?on=lab/);
  await page.goBack();
  await page.waitForURL(/\/runs\/.*on=lab/);
  await page.goto(at(retinker, "/?on=lab&q=nothing-like-it"));
  await byTestId(page, "runs-search").waitFor();
  await byTestId(page, "runs-search").fill("beta");
  await shows(page, "beta");
  await page.waitForURL((url) => url.searchParams.get("q") === "beta" && url.searchParams.get("on") === "lab");
  assert.deepEqual(page.problems, []);

  // Each state has words of its own, and says what to do.
  for (const [name, code, said, state] of [
    ["locked", "service_unauthorized", /refuses the key[\s\S]*TINKER_API_KEY_LOCKED/, "wrong-key"],
    ["keyless", "service_key_missing", /no key[\s\S]*TINKER_API_KEY_KEYLESS/, "no-key"],
    ["gone", "service_unreachable", new RegExp(`does not answer[\\s\\S]*${gone.replace(/.*:/, "")}`), "unreachable"],
  ]) {
    await page.goto(at(retinker, `/?on=${name}`));
    const banner = page.locator(`[data-testid="banner-problem"][data-code="${code}"]`);
    await banner.waitFor({ timeout: 60_000 });
    assert.match(await banner.innerText(), said);
    await byTestId(page, "own-service-command").waitFor();
    assert.ok(!/no training runs/i.test(await page.locator("main").innerText()), "it does not claim an empty list");
    const listed = page.locator(`main [data-testid="connection"][data-name="${name}"][data-state="${state}"]`);
    await listed.waitFor();
    assert.equal(await listed.getAttribute("aria-current"), "true");
    await picture(page, `connection-${state}`);
  }
  assert.ok(refuses.seen.every((key) => key === undefined || key === "tml-wrong"), `${refuses.seen}`);
  assert.ok(refuses.seen.includes("tml-wrong") && refuses.seen.includes(undefined));

  await page.goto(at(retinker, "/?on=nobody"));
  await byTestId(page, "no-connection").waitFor();
  assert.match(await byTestId(page, "no-connection").innerText(), /local, lab, locked/);
  await picture(page, "connection-unknown");
  await page.locator('main [data-testid="connection"][data-name="local"]').click();
  await shows(page, "alpha");
});

test("a deep link shows the connection that it names, and two tabs show two", async (t) => {
  const { retinker, other } = await fourConnections(t);
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl);
  await shows(page, "alpha");
  const { training_runs: runs } = await other.service("training_runs");
  const run = runs[0].training_run_id;
  const second = await page.context().newPage();
  await second.goto(at(retinker, `/runs/${encodeURIComponent(run)}?on=lab`));
  await second.locator("h1", { hasText: "beta" }).waitFor();
  await page.bringToFront();
  await page.reload();
  await shows(page, "alpha");
  // The same run is not one of the first connection.
  await page.goto(at(retinker, `/runs/${encodeURIComponent(run)}`));
  await page.locator('[data-testid="banner-problem"][data-code="run_not_found"]').waitFor();
  await second.bringToFront();
  await second.getByRole("link", { name: "All runs" }).first().click();
  await shows(second, "beta");
  assert.equal((await names(second)).length, 1);
});

test("a newcomer's first page turns into the list with the first run", async (t) => {
  const retinker = await Retinker.up(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  const state = byTestId(page, "welcome-state");
  await state.filter({ hasText: "no training runs yet" }).waitFor();
  const python = byTestId(page, "snippet-python");
  await page.waitForFunction(
    (url) => {
      const code = document.querySelector('[data-testid="snippet-python"]')?.textContent ?? "";
      return code.includes(url) && code.includes("retinker/");
    },
    retinker.serviceUrl,
  );
  assert.match(await python.innerText(), /api_key="tml-local"/);
  await picture(page, "welcome");
  await page.getByRole("tab", { name: "Rust" }).click();
  assert.match(await byTestId(page, "snippet-rust").innerText(), /cargo run --release -p retinker --example train/);
  await page.setViewportSize({ width: 380, height: 800 });
  await picture(page, "welcome-narrow");
  assert.equal(await wide(page), false, "nothing is cut off on a narrow screen");
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.emulateMedia({ colorScheme: "dark" });
  await picture(page, "welcome-dark");

  // Beside it, one who went to the page by the menu.
  const second = await page.context().newPage();
  await second.goto(at(retinker, "/"));
  await byTestId(second, "connections-open").click();
  await second.getByRole("link", { name: "How to begin" }).click();
  await second.waitForURL(/\/welcome/);
  await byTestId(second, "welcome-state").waitFor();

  await page.bringToFront();
  await train(t, retinker.serviceUrl, "the first");
  await shows(page, "the first");
  await second.bringToFront();
  await shows(second, "the first");
  assert.equal(new URL(second.url()).pathname, "/");
  await second.goto(at(retinker, "/welcome"));
  await byTestId(second, "welcome-state").filter({ hasText: "has training runs" }).waitFor();
  assert.equal(await byTestId(second, "demo-begin").count(), 0, "nobody's runs are made to fail");
  await second.getByRole("link", { name: "Show them" }).click();
  await shows(second, "the first");
  assert.deepEqual(page.problems, []);
});

test("the demonstration is begun from the first page", async (t) => {
  const retinker = await Retinker.up(t);
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await byTestId(page, "demo-begin").click();
  await byTestId(page, "demo-progress").waitFor();
  await page.locator('[data-testid="run-row"]').first().waitFor();
  await until("the demonstration to be at work", async () => (await retinker.host("status")).body.demo?.running);
});

test("a console without any service starts, and says how to get one", async (t) => {
  const port = await freePort();
  const args = ["console", "--port", "0", "--service-port", `${port}`, "--data-dir", await temporaryDir(t)];
  const retinker = await Retinker.start(t, args, { TINKER_API_KEY: "", TINKER_BASE_URL: undefined });
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.locator('[data-testid="banner-problem"][data-code="service_unreachable"]').waitFor({ timeout: 60_000 });
  assert.equal(await byTestId(page, "own-service-command").innerText(), "retinker up");
  await picture(page, "welcome-no-service");
  const up = ["up", "--no-demo", "--port", "0", "--service-port", `${port}`, "--data-dir", await temporaryDir(t)];
  await Retinker.start(t, up);
  await byTestId(page, "welcome-state").filter({ hasText: "no training runs yet" }).waitFor({ timeout: 60_000 });

  const { code, stderr } = await runToEnd(["console", "--port", "0", "--connection", "a-b=http://x", "--connection", "a.b=http://y"]);
  assert.equal(code, 1);
  assert.match(stderr, /both would be sent the key in TINKER_API_KEY_A_B/);
});
