// What somebody does who has no pointer.
import assert from "node:assert/strict";

import { byTestId } from "./browser.mjs";

/** A thing of this test id, for the functions below. */
export const named = (id) => `[data-testid="${id}"]`;

/** Whether the keyboard is on one of these. */
export const isOn = (page, selector) =>
  page.evaluate((selector) => document.activeElement?.matches(selector) ?? false, selector);

/** Presses Tab until the keyboard is on one of these. */
export async function tabTo(page, selector) {
  for (let n = 0; n < 150; n += 1) {
    if (await isOn(page, selector)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`Tab does not come to ${selector}`);
}

/** Comes to one of these by Tab, and presses Enter. */
export async function press(page, selector) {
  await tabTo(page, selector);
  await page.keyboard.press("Enter");
}

/** Closes the dialog that is open. What is in a dialog goes a moment after it has closed, and only then is all over. */
export async function escape(page) {
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => {
    const isClosed = (dialog) => !dialog.open && dialog.children.length === 1;
    return [...document.querySelectorAll("dialog")].every(isClosed);
  });
}

/** Goes to a page, a view or a run by its name. */
export async function goTo(page, name) {
  await page.keyboard.press("Control+k");
  await page.waitForFunction(() => document.activeElement?.matches('[data-testid="palette-text"]'));
  await page.keyboard.type(name);
  const option = byTestId(page, "palette-option").filter({ has: page.getByText(name, { exact: true }) }).first();
  await option.waitFor();
  // Runs come later than what is on every page, and stand below it.
  for (let n = 0; (await option.getAttribute("aria-selected")) !== "true"; n += 1) {
    assert.ok(n < 50, `the arrows do not come to ${name}`);
    await page.keyboard.press("ArrowDown");
  }
  await page.keyboard.press("Enter");
}

/** Fails unless the keyboard is, or in a moment will be, on something in sight that is not the whole page. */
export async function assertSomewhere(page) {
  // What takes the keyboard's place is given it when it is drawn.
  const found = page.waitForFunction(
    () => {
      const node = document.activeElement;
      if (!node || node === document.body || node === document.documentElement) return false;
      const { top, bottom, left, right } = node.getBoundingClientRect();
      const isInSight = bottom > 0 && right > 0 && top < innerHeight && left < innerWidth;
      return isInSight && node.checkVisibility({ visibilityProperty: true });
    },
    null,
    { timeout: 3000 },
  );
  await found.catch(async () => {
    const on = await page.evaluate(() => document.activeElement?.outerHTML.slice(0, 160));
    assert.fail(`the keyboard is nowhere: ${on}`);
  });
}

/** Fails unless the keyboard is on one of these, at the latest in a moment. */
export async function assertOn(page, selector) {
  const matches = (selector) => document.activeElement?.matches(selector);
  const there = page.waitForFunction(matches, selector, { timeout: 3000 });
  await there.catch(async () => {
    const on = await page.evaluate(() => document.activeElement?.outerHTML.slice(0, 160));
    assert.fail(`the keyboard is not on ${selector} but on ${on}`);
  });
}
