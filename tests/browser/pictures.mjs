// The pictures in docs/pictures: the main pages, in light and dark. Run by hand, with the environment of the browser tests:
// node --test pictures.mjs
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { byTestId, openBrowser, openPage } from "./support/browser.mjs";
import { DIALOGS, show } from "./support/pages.mjs";
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
    ["session", `/sessions/${encodeURIComponent(made.healthy.split(":train:")[0])}`, "session-runs"],
    ["samplers", "/samplers", "samplers-total"],
    ["projects", "/projects", "project-row"],
    ["usage", "/usage", "storage-table"],
    ["how-to-begin", "/welcome", "welcome-state"],
  ];
  /** What is opened on a page, by its name in the list of all dialogs. */
  const opened = [
    ["restore", "the restore of a run"],
    ["restore-several", "the restore of several runs"],
    ["clean-up", "what a rule would delete"],
    ["try", "two models tried"],
    ["palette", "the palette"],
  ];
  const narrow = pages.filter(([name]) => ["runs", "poisoned"].includes(name));
  const browser = await openBrowser(t);
  for (const colorScheme of ["light", "dark"]) {
    const page = await openPage(browser, made.retinker.consoleUrl, { colorScheme });
    const take = async (name) => {
      await page.waitForTimeout(800);
      await page.screenshot({ path: join(DIR, `${name}-${colorScheme}.png`) });
    };
    const look = async ([, path, there]) => {
      await page.goto(new URL(path, page.url()).href);
      await byTestId(page, there).first().waitFor();
    };
    for (const one of pages) {
      await look(one);
      await take(one[0]);
    }
    for (const [name, dialog] of opened) {
      await show(page, made, DIALOGS.find((line) => line.name === dialog));
      await take(name);
    }
    await page.setViewportSize({ width: 360, height: 780 });
    for (const one of narrow) {
      await look(one);
      await take(`${one[0]}-narrow`);
    }
  }
});
