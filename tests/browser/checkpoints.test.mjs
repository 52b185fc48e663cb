// All checkpoints of a service: found, published, given another life, deleted, thinned out, downloaded.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { row } from "./support/acting.mjs";
import { byTestId, holdBack, openBrowser, openConsole, openPage, picture } from "./support/browser.mjs";
import { Retinker, temporaryDir, until } from "./support/retinker.mjs";
import { Training } from "./support/train.mjs";

/** A service with two runs: one with three checkpoints and one for sampling, one poisoned with two. */
async function saved(t) {
  const retinker = await Retinker.up(t, "--faults");
  const train = (name, ...more) => Training.create(t, retinker.serviceUrl, { name }, ...more);
  const sound = train("sound", "--steps", "6", "--save-every", "2");
  await sound.finish();
  const victim = train("victim", "--steps", "4", "--save-every", "2");
  await victim.finish();
  return { retinker, sound: sound.attachment.model_id, victim: victim.attachment.model_id };
}

/** What the service itself says is there, by path. */
async function listed(retinker) {
  const { checkpoints } = await retinker.service("checkpoints?limit=100");
  return new Map(checkpoints.map((one) => [one.tinker_path, one]));
}

/** Which of two checkpoints is older. Their times are not of one length, so their letters do not tell. */
const byAge = (a, b) => Date.parse(a.time) - Date.parse(b.time) || (a.tinker_path < b.tinker_path ? -1 : 1);

const rows = (page) => byTestId(page, "checkpoint-item");
const shows = (page, count) =>
  page.waitForFunction((n) => document.querySelectorAll('[data-testid="checkpoint-item"]').length === n, count);
const filter = async (page, text, count) => {
  await byTestId(page, "checkpoints-search").fill(text);
  await shows(page, count);
};
const ended = (page) => page.locator('[data-testid="job"][data-running="false"]').waitFor();
const fits = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);

async function open(t, retinker) {
  const page = await openPage(await openBrowser(t), retinker.consoleUrl);
  await page.getByRole("link", { name: "Checkpoints" }).click();
  await page.waitForURL(/\/checkpoints$/);
  return page;
}

test("checkpoints are found, sorted and picked, and the address holds it", async (t) => {
  const { retinker, sound, victim } = await saved(t);
  const all = await listed(retinker);
  assert.equal(all.size, 5);
  const page = await open(t, retinker);
  await shows(page, 5);
  assert.equal(await page.title(), "Checkpoints · retinker");
  assert.match(await byTestId(page, "checkpoints-total").innerText(), /^5 checkpoints, [\d.]+ [KM]B$/);
  await picture(page, "checkpoints");

  await filter(page, `run:${victim}`, 2);
  assert.match(decodeURIComponent(page.url()), new RegExp(`q=run:${victim}`));
  assert.match(await byTestId(page, "checkpoints-total").innerText(), /^2 matching, .* 5 checkpoints in all/);
  await filter(page, "expires:never size>1kB age<1h -run:victim", 3);
  await filter(page, "public:yes", 0);
  await byTestId(page, "checkpoints-no-match").waitFor();
  await byTestId(page, "checkpoints-search").fill("size>big");
  const banner = page.locator('[data-testid="banner-problem"][data-code="bad_query"]');
  await banner.waitFor();
  assert.match(await banner.innerText(), /size takes a size such as 500MB/);
  await filter(page, "", 5);
  await banner.waitFor({ state: "detached" });

  const names = () => rows(page).locator(".name").allInnerTexts();
  await byTestId(page, "sort-name").click();
  await page.waitForURL(/sort=name/);
  await until("the order", async () => (await names())[0] === [...(await names())].sort()[0]);
  await byTestId(page, "sort-name").click();
  await page.waitForURL(/desc=true/);
  const head = page.locator('th[aria-sort="descending"]');
  assert.equal(await head.innerText(), "Checkpoint");
  await page.goBack();
  await page.locator('th[aria-sort="ascending"]').waitFor();
  await byTestId(page, "type-filter-sampler").click();
  await shows(page, 0);
  await byTestId(page, "type-filter-all").click();
  await shows(page, 5);

  // From the keyboard: the third, and with Shift all from there to the first.
  const boxes = rows(page).getByRole("checkbox");
  await boxes.nth(2).focus();
  await page.keyboard.press("Space");
  await boxes.nth(0).click({ modifiers: ["Shift"] });
  await byTestId(page, "selection").getByText("3 checkpoints selected").waitFor();
  await byTestId(page, "select-matching").getByText("Select all 5 matching").waitFor();
  await picture(page, "checkpoints-selected");
  await byTestId(page, "select-matching").click();
  await byTestId(page, "selection").getByText("5 checkpoints selected").waitFor();
  await filter(page, "run:victim", 2);
  await byTestId(page, "selection").getByText("5 checkpoints selected, 3 not on this page").waitFor();
  await byTestId(page, "select-none").click();
  await byTestId(page, "selection").waitFor({ state: "detached" });
  await filter(page, "", 5);

  await row(page, [...all.keys()].find((path) => path.includes(sound))).getByRole("link").click();
  await page.waitForURL((url) => decodeURIComponent(url.pathname) === `/runs/${sound}`);
  assert.deepEqual(page.problems.filter((problem) => !problem.includes("400")), []);
});

test("lives and publications are changed and taken back", async (t) => {
  const { retinker, sound } = await saved(t);
  const page = await open(t, retinker);
  await shows(page, 5);
  const [path] = [...(await listed(retinker)).keys()].filter((path) => path.includes(sound));
  const now = async () => (await listed(retinker)).get(path);
  const more = async () => {
    await row(page, path).locator('[data-testid="more"]').click();
    await byTestId(page, "checkpoint-dialog").waitFor();
  };

  await more();
  await byTestId(page, "checkpoint-dialog").getByText(path, { exact: true }).waitFor();
  await picture(page, "checkpoint");
  await byTestId(page, "publish").click();
  await ended(page);
  assert.match(await byTestId(page, "job").innerText(), /1 checkpoint published\./);
  assert.equal((await now()).public, true);
  await row(page, path).locator('[data-testid="public"]').waitFor();
  await byTestId(page, "undo").click();
  await byTestId(page, "job").getByText("1 checkpoint made private.").waitFor();
  assert.equal((await now()).public, false);

  const days = async () => {
    const { expires_at: at } = await now();
    return at ? Math.round((Date.parse(at) - Date.now()) / 86_400_000) : null;
  };
  assert.equal(await days(), null);
  await more();
  await byTestId(page, "life").click();
  await byTestId(page, "life-from-now").check();
  await byTestId(page, "life-days").selectOption({ label: "30 days" });
  await picture(page, "checkpoint-life");
  await byTestId(page, "confirm-life").click();
  await ended(page);
  assert.equal(await days(), 30);
  await row(page, path).getByText(/in (29|30) d/).waitFor();
  await more();
  await byTestId(page, "life").click();
  await byTestId(page, "confirm-life").click();
  await until("seven days more", async () => (await days()) === 37);
  await page.locator('[data-testid="job"][data-running="false"] [data-testid="undo"]').click();
  await until("the way back", async () => (await days()) === 30);
  await ended(page);
  assert.match(await byTestId(page, "job").innerText(), /1 checkpoint given their former life/);
  assert.deepEqual(page.problems, []);
});

test("a checkpoint is copied into a run of its own, and what was done is told with what it was done to", async (t) => {
  const { retinker, sound } = await saved(t);
  const page = await open(t, retinker);
  await shows(page, 5);
  const before = [...(await listed(retinker)).keys()];
  const [path] = before.filter((path) => path.includes(sound));
  await row(page, path).locator('[data-testid="more"]').click();
  await byTestId(page, "copy").click();
  await ended(page);
  assert.match(await byTestId(page, "job").innerText(), /^1 checkpoint copied\.\s+Close$/, "there is no way back to offer");
  await shows(page, 6);
  const copies = [...(await listed(retinker)).keys()].filter((path) => !before.includes(path));
  assert.equal(copies.length, 1);
  assert.equal(copies[0].split("/").at(-1), path.split("/").at(-1));
  await row(page, copies[0]).waitFor();
  await picture(page, "checkpoints-copied");

  await byTestId(page, "select-page").check();
  await byTestId(page, "bulk-publish").click();
  await byTestId(page, "job").getByText("6 checkpoints published.").waitFor();
  await page.getByRole("link", { name: "Activity" }).click();
  const acts = byTestId(page, "act");
  await acts.first().waitFor();
  assert.deepEqual(await acts.locator("strong").allInnerTexts(), ["Publish checkpoints", "Copy checkpoints"]);
  assert.match(await acts.first().innerText(), /by the console/);
  await acts.first().getByText("Which 6").click();
  assert.equal(await acts.first().locator("li").count(), 6);
  await acts.last().getByText("Which one").click();
  assert.equal(await acts.last().locator("li").innerText(), path);
  await picture(page, "activity-acts");
  assert.deepEqual(page.problems, []);
});

test("deleting shows first what goes, spares what is needed, and does what was shown", async (t) => {
  const { retinker, sound, victim } = await saved(t);
  await retinker.fault("poison", { run_id: victim, reason: "a machine died" });
  const page = await open(t, retinker);
  await byTestId(page, "needed").waitFor();
  const all = await listed(retinker);
  const of = (run) =>
    [...all.values()].filter((one) => one.tinker_path.includes(run)).sort(byAge);
  const [older, needed] = of(victim).map((one) => one.tinker_path);

  await filter(page, "run:victim", 2);
  assert.equal(await row(page, needed).locator('[data-testid="needed"]').count(), 1);
  await byTestId(page, "select-page").check();
  await byTestId(page, "bulk-delete").click();
  const dialog = byTestId(page, "checkpoint-dialog");
  const told = byTestId(page, "preview-told");
  await told.waitFor();
  assert.match(await told.innerText(), /^1 checkpoint goes, which frees [\d.]+ [KM]B\.$/);
  assert.match(await byTestId(page, "preview-needed").innerText(), /is poisoned, and this is what it would be restored from/);
  await picture(page, "checkpoints-delete");
  assert.equal(await byTestId(page, "confirm-delete").innerText(), "Delete 1 checkpoint");
  // Escape leaves everything as it is.
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  assert.equal((await listed(retinker)).size, 5);

  await byTestId(page, "bulk-delete").click();
  await byTestId(page, "confirm-delete").click();
  await ended(page);
  await shows(page, 1);
  let left = await listed(retinker);
  assert.deepEqual([left.has(older), left.has(needed), left.size], [false, true, 4]);
  assert.equal(await byTestId(page, "undo").count(), 0, "there is no way back");

  // The host refuses what is needed too, whatever a page sends; and says why.
  const refused = await retinker.host("checkpoints/actions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ action: "delete", paths: [needed] }),
  });
  assert.deepEqual([refused.body.outcomes[0].done, refused.body.outcomes[0].code], [false, "needed"]);

  // Deleted by somebody else between the preview and the confirmation.
  await filter(page, "run:sound", 3);
  await byTestId(page, "select-none").click();
  const [first, second] = of(sound).map((one) => one.tinker_path);
  await row(page, first).getByRole("checkbox").check();
  await row(page, second).getByRole("checkbox").check();
  await byTestId(page, "bulk-delete").click();
  await byTestId(page, "confirm-delete").waitFor();
  const [run, rest] = first.replace("tinker://", "").split(/\/(.*)/);
  const gone = await fetch(`${retinker.serviceUrl}/api/v1/training_runs/${run}/checkpoints/${rest}`, {
    method: "DELETE",
    headers: { "x-api-key": "tml-test" },
  });
  assert.equal(gone.ok, true);
  await byTestId(page, "confirm-delete").click();
  await byTestId(page, "job").getByText("2 checkpoints deleted, 1 of them gone already.").waitFor();
  left = await listed(retinker);
  assert.deepEqual([left.has(first), left.has(second), left.size], [false, false, 2]);

  // Expressly.
  await filter(page, "run:victim", 1);
  await row(page, needed).locator('[data-testid="more"]').click();
  await byTestId(page, "delete").click();
  await told.getByText("Nothing would be deleted.").waitFor();
  await byTestId(page, "force").check();
  await byTestId(page, "confirm-delete").click();
  await ended(page);
  await until("it is gone", async () => !(await listed(retinker)).has(needed));
  assert.deepEqual(page.problems, []);
});

test("what is done with many goes on while one looks elsewhere, and is told on the way back", async (t) => {
  const { retinker } = await saved(t);
  const page = await open(t, retinker);
  await shows(page, 5);
  const go = await holdBack(page, "**/retinker/v1/checkpoints/actions");
  await byTestId(page, "select-page").check();
  await byTestId(page, "bulk-delete").click();
  await byTestId(page, "goes").locator("li").nth(4).waitFor();
  // A name may hold marks that turn the text round: it is kept apart from what stands beside it.
  assert.equal(await byTestId(page, "goes").locator("li bdi").count(), await byTestId(page, "goes").locator("li").count());
  await byTestId(page, "confirm-delete").click();
  await page.locator('[data-testid="job"][data-running="true"]').waitFor();
  await page.getByRole("link", { name: "Activity" }).click();
  await page.waitForURL(/activity/);
  go();
  await until("all of them to be gone", async () => (await listed(retinker)).size === 0);
  await page.getByRole("link", { name: "Checkpoints" }).click();
  await ended(page);
  assert.match(await byTestId(page, "job").innerText(), /5 checkpoints/);
  assert.deepEqual(page.problems, []);
});

test("a rule shows what it would delete, and deletes that", async (t) => {
  const { retinker, sound } = await saved(t);
  const page = await open(t, retinker);
  await filter(page, "run:sound", 3);
  const names = [...(await listed(retinker)).values()]
    .filter((one) => one.tinker_path.includes(sound))
    .sort(byAge)
    .map((one) => one.tinker_path);
  await byTestId(page, "retention-button").click();
  const preview = async () => {
    await byTestId(page, "preview-retention").click();
    await byTestId(page, "preview-told").waitFor();
  };
  const goes = () => byTestId(page, "goes").locator("li").evaluateAll((all) => all.map((one) => one.title));
  await byTestId(page, "keep-last").fill("1");
  await preview();
  assert.deepEqual(await goes(), names.slice(0, 2), "oldest first, and nothing of the other run");
  await byTestId(page, "keep-every").fill("2");
  await byTestId(page, "preview-told").waitFor({ state: "detached" });
  await preview();
  assert.deepEqual(await goes(), [names[1]]);
  await picture(page, "checkpoints-clean-up");
  // An answer that comes when another rule is written is none of that one.
  const go = await holdBack(page, "**/checkpoints/retention");
  const answered = page.waitForResponse("**/checkpoints/retention");
  await byTestId(page, "preview-retention").click();
  await byTestId(page, "keep-last").fill("30");
  go();
  await answered;
  await page.waitForTimeout(300);
  assert.equal(await byTestId(page, "preview-told").count(), 0);
  assert.equal(await byTestId(page, "confirm-delete").count(), 0);
  await page.unroute("**/checkpoints/retention");
  // The loss falls in these few steps, so the newest are the best.
  await byTestId(page, "keep-last").fill("");
  await byTestId(page, "keep-every").fill("");
  await byTestId(page, "keep-best").fill("2");
  await preview();
  const { points } = await (
    await fetch(`${retinker.serviceUrl}/retinker/local/v1/runs/${sound}/metrics`, { headers: { "x-api-key": "tml-test" } })
  ).json();
  const losses = [1, 3, 5].map((at) => points[at].loss_per_token);
  const worst = losses.indexOf(Math.max(...losses));
  assert.deepEqual(await goes(), [names[worst]]);
  await byTestId(page, "confirm-delete").click();
  await ended(page);
  const left = await listed(retinker);
  assert.deepEqual([left.has(names[worst]), left.size], [false, 4]);
  assert.deepEqual(page.problems, []);
});

test("a download is the service's own archive, to the byte", async (t) => {
  const { retinker, sound } = await saved(t);
  const page = await open(t, retinker);
  await shows(page, 5);
  const [path] = [...(await listed(retinker)).keys()].filter((path) => path.includes(sound));
  const [run, rest] = path.replace("tinker://", "").split(/\/(.*)/);
  const own = await fetch(`${retinker.serviceUrl}/api/v1/training_runs/${run}/checkpoints/${rest}/archive`, {
    headers: { "x-api-key": "tml-test" },
  });
  const wanted = Buffer.from(await own.arrayBuffer());
  await row(page, path).locator('[data-testid="more"]').click();
  const [download] = await Promise.all([page.waitForEvent("download"), byTestId(page, "download").click()]);
  assert.match(download.suggestedFilename(), /^[\w.-]+_weights_[\w-]+\.tar$/);
  const got = await readFile(await download.path());
  assert.ok(wanted.length > 10_000 && got.equals(wanted), `${got.length} bytes of ${wanted.length}`);
  await page.locator('[data-testid="download-state"][data-state="done"]').waitFor();
  await picture(page, "checkpoints-downloaded");
  await byTestId(page, "download-close").click();
  await byTestId(page, "download-state").waitFor({ state: "detached" });
  assert.deepEqual(page.problems, []);
});

test("on a narrow screen, in the dark, and while the service is away", async (t) => {
  const { retinker } = await saved(t);
  const browser = await openBrowser(t);
  const page = await openPage(browser, retinker.consoleUrl, {
    viewport: { width: 380, height: 800 },
    colorScheme: "dark",
  });
  await page.goto(new URL("/checkpoints", retinker.consoleUrl).href);
  await shows(page, 5);
  await rows(page).getByRole("checkbox").first().check();
  await picture(page, "checkpoints-narrow-dark");
  assert.equal(await fits(page), true, "nothing is cut off");
  await byTestId(page, "bulk-delete").click();
  await byTestId(page, "preview-told").waitFor();
  await picture(page, "checkpoints-delete-narrow-dark");
  assert.equal(await fits(page), true);

  // Another console, on a service that will be away.
  const args = ["console", "--port", "0", "--base-url", retinker.serviceUrl, "--data-dir", await temporaryDir(t)];
  const second = await Retinker.start(t, args);
  await openConsole(page, second.consoleUrl);
  await page.goto(new URL("/checkpoints", second.consoleUrl).href);
  await shows(page, 5);
  await retinker.kill("SIGKILL");
  await page.locator('[data-testid="banner-problem"][data-code="service_unreachable"]').waitFor({ timeout: 60_000 });
  assert.equal(await rows(page).count(), 5, "the list stays");
  await page.reload();
  await shows(page, 5);
  assert.match(await page.locator('[data-testid="banner-problem"]').first().innerText(), /The list below is that of/);
});
