// The pictures in docs/pictures: the main pages, in light and dark. Run by hand, with the environment of the browser tests:
// node --test pictures.mjs
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { byTestId, openBrowser, openPage } from "./support/browser.mjs";
import { scene } from "./support/scene.mjs";

const DIR = fileURLToPath(new URL("../../docs/pictures", import.meta.url));

test("pictures of the main pages", async (t) => {
  const made = await scene(t);
  const ofRun = (id) => `/runs/${encodeURIComponent(id)}`;
  const pages = [
    ["runs", "/", "run-row"],
    ["run", ofRun(made.successor), "restored-from-link"],
    ["poisoned", ofRun(made.poisoned), "restore-button"],
    ["checkpoints", "/checkpoints", "checkpoint-item"],
    ["compare", `/compare?run=${encodeURIComponent(made.healthy)}&run=${encodeURIComponent(made.poisoned)}`, "compare-differences"],
    ["activity", "/activity", "restore-row"],
    ["sessions", "/sessions", "session-row"],
    ["samplers", "/samplers", "samplers-total"],
    ["projects", "/projects", "project-row"],
    ["usage", "/usage", "storage-table"],
    ["try", "/try?path=retinker%2Fnano-llama", "try-run"],
  ];
  const browser = await openBrowser(t);
  for (const colorScheme of ["light", "dark"]) {
    const page = await openPage(browser, made.retinker.consoleUrl, { colorScheme });
    for (const [name, path, there] of pages) {
      await page.goto(new URL(path, page.url()).href);
      await byTestId(page, there).first().waitFor();
      await page.waitForTimeout(800);
      await page.screenshot({ path: join(DIR, `${name}-${colorScheme}.png`) });
    }
    await page.goto(new URL(ofRun(made.poisoned), page.url()).href);
    await byTestId(page, "restore-button").click();
    await byTestId(page, "plan-summary").waitFor();
    await page.waitForTimeout(800);
    await page.screenshot({ path: join(DIR, `restore-${colorScheme}.png`) });
  }
});
