// Every page and dialog, looked at by axe: in light and dark, wide and narrow. None is wider than the screen, and nothing
// that is pressed is smaller than a fingertip needs.
import assert from "node:assert/strict";
import { test } from "node:test";

import { assertAccessible, assertFits, assertLargeEnough } from "./support/accessible.mjs";
import { byTestId, openBrowser, openPage, picture } from "./support/browser.mjs";
import { DIALOGS, PAGES, show, unexpected } from "./support/pages.mjs";
import { scene } from "./support/scene.mjs";

const LOOKS = [
  { look: "light", colorScheme: "light", width: 1280 },
  { look: "dark", colorScheme: "dark", width: 1280 },
  { look: "light on the narrowest screen", colorScheme: "light", width: 360 },
  { look: "dark on a narrow screen", colorScheme: "dark", width: 380 },
  { look: "light on a 4K screen", colorScheme: "light", width: 3840 },
];

test("every page and dialog is accessible, and fits the screen", async (t) => {
  const made = await scene(t);
  const browser = await openBrowser(t);
  for (const { look, colorScheme, width } of LOOKS) {
    const options = { colorScheme, viewport: { width, height: 860 }, reducedMotion: "reduce" };
    await t.test(`without a token: ${look}`, async () => {
      const page = await openPage(browser, new URL("/", made.retinker.consoleUrl).href, options);
      await byTestId(page, "locked").waitFor();
      await assertAccessible(page, `the page without a token in ${look}`);
      await assertFits(page, `the page without a token in ${look}`);
      await assertLargeEnough(page, `the page without a token in ${look}`);
      await page.context().close();
    });
    const page = await openPage(browser, made.retinker.consoleUrl, options);
    for (const shown of [...PAGES, ...DIALOGS]) {
      const { name } = shown;
      await t.test(`${name}: ${look}`, async () => {
        await show(page, made, shown);
        assert.notEqual(await page.title(), "");
        await picture(page, `${name}, ${look}`.replaceAll(/[^\w]+/g, "-"));
        await assertAccessible(page, `${name} in ${look}`);
        await assertFits(page, `${name} in ${look}`);
        await assertLargeEnough(page, `${name} in ${look}`);
      });
    }
    assert.deepEqual(unexpected(page.problems), []);
    await page.context().close();
  }
});
