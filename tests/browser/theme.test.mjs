// Colours are those that were chosen, here and after a reload; who wants no motion gets none.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openRun, picture, runRow } from "./support/browser.mjs";
import { faulty, pageOf } from "./support/lost.mjs";
import { Training } from "./support/train.mjs";

/** Whether the page is dark, by what is really drawn. */
const isDark = (page) =>
  page.evaluate(() => {
    const light = (color) => color.match(/[\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
    const paper = light(getComputedStyle(document.documentElement).backgroundColor);
    return light(getComputedStyle(document.body).color) > paper;
  });

test("light, dark and those of the system, in turn, and kept", async (t) => {
  const { retinker } = await faulty(t);
  const page = await pageOf(t, retinker, { colorScheme: "dark" });
  const button = byTestId(page, "theme-toggle");
  const says = (name) => page.getByRole("button", { name }).waitFor();
  await says("Colours of the system; change to light");
  assert.equal(await isDark(page), true, "as the system is");

  await button.click();
  await says("Light colours; change to dark");
  assert.equal(await isDark(page), false, "whatever the system is");
  await page.reload();
  await says("Light colours; change to dark");
  assert.equal(await isDark(page), false, "kept");

  // The button says so whoever has chosen.
  await page.keyboard.press("Control+k");
  await byTestId(page, "palette-text").fill("dark colours");
  await page.keyboard.press("Enter");
  await says("Dark colours; change to those of the system");
  await page.keyboard.press("Control+k");
  await byTestId(page, "palette-text").fill("light colours");
  await page.keyboard.press("Enter");
  await says("Light colours; change to dark");

  await page.emulateMedia({ colorScheme: "light" });
  await button.click();
  await says("Dark colours; change to those of the system");
  assert.equal(await isDark(page), true);
  await page.reload();
  await says("Dark colours; change to those of the system");
  assert.equal(await isDark(page), true, "kept");

  await button.click();
  await says("Colours of the system; change to light");
  assert.equal(await isDark(page), false);
  await page.emulateMedia({ colorScheme: "dark" });
  assert.equal(await isDark(page), true, "it follows the system again");
  await page.reload();
  await says("Colours of the system; change to light");
  assert.equal(await isDark(page), true);
  assert.deepEqual(page.problems, []);
});

/** What moves on the page for longer than a blink, and what has begun to since `watch`. */
const BLINK_MS = 100;
const watch = (page) =>
  page.evaluate(() => {
    window.__begun = [];
    const note = (event) => window.__begun.push(`${event.type} ${event.animationName ?? event.propertyName}`);
    for (const kind of ["animationstart", "transitionrun"]) document.addEventListener(kind, note);
  });
const moving = (page) =>
  page.evaluate(
    (blink) => [
      ...window.__begun,
      ...document
        .getAnimations()
        .filter((one) => one.effect.getComputedTiming().endTime > blink)
        .map((one) => one.animationName ?? one.transitionProperty),
    ],
    BLINK_MS,
  );

test("nothing moves for those who want no motion", async (t) => {
  const { retinker, fault } = await faulty(t);
  const ids = [];
  for (const name of ["seen to move", "seen to stand still"]) {
    const training = Training.create(t, retinker.serviceUrl, { name }, "--steps", "2", "--save-every", "2");
    await training.finish();
    ids.push(training.attachment.model_id);
  }
  const page = await pageOf(t, retinker);
  // The same with and without the wish: a page on which nothing ever moves would prove nothing.
  for (const [at, reducedMotion] of ["no-preference", "reduce"].entries()) {
    await page.emulateMedia({ reducedMotion });
    await page.goto(new URL("/", retinker.consoleUrl).href);
    await runRow(page, ids[at], "at_risk").or(runRow(page, ids[at], "healthy")).waitFor();
    await watch(page);
    await fault("poison", { run_id: ids[at], reason: "a machine died" });
    await runRow(page, ids[at], "poisoned").waitFor();
    // A mark on what has changed is there in the next frame, if at all.
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    const inList = await moving(page);

    await fault("pause", { queue_state: "paused_capacity" });
    await openRun(page, ids[at], "poisoned");
    await watch(page);
    await byTestId(page, "restore-button").click();
    await byTestId(page, "confirm-restore").click();
    await page.locator('[data-testid="restore-progress"][data-state="loading"]').waitFor();
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    const inDialog = await moving(page);
    await picture(page, `motion-${reducedMotion}`);
    if (reducedMotion === "reduce") {
      assert.deepEqual([inList, inDialog], [[], []]);
    } else {
      assert.ok(inList.length > 0 && inDialog.length > 0, JSON.stringify([inList, inDialog]));
    }
    await fault("pause", null, "DELETE");
    await byTestId(page, "restored-link").waitFor();
  }
  assert.deepEqual(page.problems, []);
});
