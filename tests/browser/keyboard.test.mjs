// Every page and dialog by the keyboard alone: Tab comes to all that can be used, shows where it is, and goes round.
import assert from "node:assert/strict";
import { test } from "node:test";

import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { named, tabTo } from "./support/keyboard.mjs";
import { DIALOGS, PAGES, show, unexpected } from "./support/pages.mjs";
import { until } from "./support/retinker.mjs";
import { scene } from "./support/scene.mjs";

/** Runs in the page: what Tab must come to, each with a number and what it is called, and what it has come to. */
function begin() {
  const usable = "a[href], button:not([disabled]), input:not([disabled]), select:not([disabled]), textarea, summary, [tabindex]";
  const within = document.querySelector("dialog[open]") ?? document;
  const all = [...within.querySelectorAll(usable)].filter((node) =>
    node.tabIndex >= 0 && node.checkVisibility({ visibilityProperty: true }) && !node.closest("[inert], [aria-hidden=true]") &&
    // Of a group of radio buttons, the one that is chosen is where Tab comes to.
    (node.type !== "radio" || node.checked || !within.querySelector(`input[name="${node.name}"]:checked`)));
  window.__wanted = new Map(all.map((node) => [node, node.outerHTML.slice(0, 140)]));
  window.__unseen = [];
  return all.length;
}

/** Runs in the page: where the keyboard is now. Gives how many are still to come, or -1 outside of the page. */
function here() {
  const node = document.activeElement;
  if (!node || node === document.body) return -1;
  const style = getComputedStyle(node);
  const box = node.getBoundingClientRect();
  const isShown = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  // Small boxes may show it on the label that they stand in.
  const label = node.closest("label");
  const byLabel = label && getComputedStyle(label).outlineStyle !== "none";
  const isInSight = box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
  if (!(isShown || byLabel) || !isInSight) window.__unseen.push(node.outerHTML.slice(0, 140));
  window.__wanted.delete(node);
  return window.__wanted.size;
}

async function walk(page, what) {
  const many = await until("everything to be there", async () => {
    const before = await page.evaluate(begin);
    await page.waitForTimeout(600);
    return (await page.evaluate(begin)) === before && before;
  });
  assert.ok(many > 0, `${what} has something to use`);
  let left = many;
  // The browser's own bar is a stop, too: a few more than there are.
  for (let n = 0; n < many + 5 && left !== 0; n += 1) {
    await page.keyboard.press("Tab");
    const now = await page.evaluate(here);
    if (now >= 0) left = now;
  }
  const { missed, unseen } = await page.evaluate(() => ({ missed: [...window.__wanted.values()], unseen: window.__unseen }));
  assert.deepEqual(missed, [], `Tab does not come to these of ${what}`);
  assert.deepEqual(unseen, [], `where the keyboard is cannot be seen on these of ${what}`);
}

test("Tab comes to all that can be used, and shows where it is", async (t) => {
  const made = await scene(t);
  const browser = await openBrowser(t);
  const page = await openPage(browser, made.retinker.consoleUrl, { reducedMotion: "reduce" });
  for (const shown of [...PAGES, ...DIALOGS]) {
    await t.test(shown.name, async () => {
      await show(page, made, shown);
      await walk(page, shown.name);
    });
  }
  assert.deepEqual(unexpected(page.problems), []);
});

test("a run is found, planned and restored without a pointer", async (t) => {
  const made = await scene(t);
  const browser = await openBrowser(t);
  const page = await openPage(browser, made.retinker.consoleUrl);
  await byTestId(page, "run-row").first().waitFor();
  const to = (testid) => tabTo(page, named(testid));
  await to("runs-search");
  await page.keyboard.type("health:poisoned");
  await page.waitForURL(/q=health%3Apoisoned/);
  await page.waitForFunction(() => document.querySelectorAll('[data-testid="run-row"]').length === 1);
  await to("runs-scroller");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/runs\//);
  await to("restore-button");
  await page.keyboard.press("Enter");
  await byTestId(page, "plan-summary").waitFor();
  await to("confirm-restore");
  await picture(page, "keyboard-confirm");
  await page.keyboard.press("Enter");
  await byTestId(page, "restored-link").waitFor();
  await to("restored-link");
  const id = await byTestId(page, "restored-link").getAttribute("data-run-id");
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname.endsWith(encodeURIComponent(id)));
  assert.equal(await page.evaluate(() => document.activeElement?.id), "page-title", "the keyboard begins at the new page's heading");
  assert.deepEqual(page.problems, []);
});
