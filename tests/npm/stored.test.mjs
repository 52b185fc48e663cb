// A redo log in the browser's own storage: a page that is closed in the midst of a training goes on when it is opened again.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";

import { freshFolder } from "./support/folder.mjs";
import { openChromium, serve } from "./support/page.mjs";
import { opened } from "./support/client.mjs";
import { MODEL } from "./support/service.mjs";
import { train } from "./support/training.mjs";

const ADAPTER = { baseModel: MODEL, rank: 4, seed: 3 };

/** Pages of one browser, each of which has the package and the training as `retinker` and `training`; `trainOn` gives each step a
 * cursor. */
async function pages(t, url) {
  const folder = await freshFolder(t, {
    "page/index.html": '<!doctype html><body><script type="module" src="/main.js"></script></body>',
    "page/training.js": await readFile(new URL("./support/training.mjs", import.meta.url), "utf8"),
    "page/main.js": `
      import * as retinker from "/retinker/dist/esm/index.js";
      import * as training from "./training.js";
      await retinker.init();
      Object.assign(window, { retinker, training, service: new retinker.ServiceClient({ baseUrl: location.origin }) });
      window.open_ = (log, more) => service.createRecoveringTrainingClient({ ...${JSON.stringify(ADAPTER)}, checkpoints: { everySteps: 4 }, log, ...more });
      window.trainOn = (client, from, to) => training.train(client, from, to, (step) => client.setCursor(Uint8Array.of(step, 255)));
      window.refused = (promise) => promise.then(() => null, ({ name, code, message }) => ({ name, code, message }));
      document.body.dataset.said = "ready";`,
  });
  const address = await serve(t, url, join(folder, "node_modules"), join(folder, "page"));
  const context = await (await openChromium(t)).newContext();
  return async () => {
    const page = await context.newPage();
    await page.goto(address);
    await page.waitForFunction(() => document.body.dataset.said === "ready");
    return page;
  };
}

test("a page that was closed goes on where it was, though its run was lost meanwhile", async (t) => {
  const { url, fault, retinker, service } = await opened(t);
  const expected = await train(await service.createLoraTrainingClient(ADAPTER), 0, 20);
  const open = await pages(t, url);

  const first = await open();
  const begun = await first.evaluate(async () => {
    const client = await open_("mine");
    const losses = await trainOn(client, 0, 10);
    // Left within a step: the page is closed before it has been taken.
    client.setCursor(Uint8Array.of(10, 255));
    await client.forwardBackward([training.example(10)], "cross_entropy");
    return { losses, resumed: client.resumed ?? null, run: client.modelId };
  });
  assert.deepEqual(begun.losses, expected.slice(0, 10));
  assert.equal(begun.resumed, null);

  await t.test("one page at a time has it", async () => {
    const second = await open();
    const refused = await second.evaluate(() => refused(open_("mine")));
    assert.deepEqual({ name: refused.name, code: refused.code }, { name: "RecoveryError", code: "redo_log" });
    assert.match(refused.message, /'mine' is in use, by another page or by a client of this one/);
    assert.deepEqual(await second.evaluate(() => retinker.listRedoLogs()), ["mine"]);
    assert.equal((await second.evaluate(() => refused(retinker.deleteRedoLog("mine")))).code, "redo_log");
    await second.close();
  });

  await first.close();
  await fault("poison", { run_id: begun.run, reason: "a machine died" });
  const again = await open();
  const gone = await again.evaluate(async () => {
    window.client = await open_("mine");
    const { step, cursor } = client.resumed;
    return { step, cursor: [...cursor], run: client.modelId, losses: await trainOn(client, step, 20), window: await client.window() };
  });
  assert.deepEqual([gone.step, gone.cursor], [10, [9, 255]]);
  assert.notEqual(gone.run, begun.run, "it was made anew");
  assert.deepEqual(gone.losses, expected.slice(10));
  assert.ok(gone.window.lastStep === 20 && gone.window.firstStep >= 8, `the log is cut behind checkpoints: ${JSON.stringify(gone.window)}`);

  await t.test("what is another run is refused, and what is damaged is told with its place", async () => {
    const other = await again.evaluate(async () => {
      client.dispose();
      return refused(open_("mine", { rank: 8 }));
    });
    assert.match(other.message, /the redo log .*mine.* is of another run: it has .*rank: 4\b.*, where .*rank: 8\b.* was asked for/);
    const damaged = await again.evaluate(async () => {
      const request = indexedDB.open("retinker-redo-logs");
      const at = await new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
      const change = at.transaction("records", "readwrite");
      const cursor = change.objectStore("records").openCursor();
      cursor.onsuccess = () => {
        const bytes = cursor.result.value;
        bytes[bytes.length - 1] ^= 1;
        cursor.result.update(bytes);
      };
      await new Promise((resolve) => (change.oncomplete = resolve));
      at.close();
      return refused(open_("mine"));
    });
    assert.match(damaged.message, /'mine' of this browser is damaged at segment \d+, byte 0: its checksum is wrong/);
  });

  await t.test("it is deleted when nobody has it", async () => {
    const left = await again.evaluate(async () => {
      await retinker.deleteRedoLog("mine");
      return retinker.listRedoLogs();
    });
    assert.deepEqual(left, []);
  });
});

test("a log without a name is in no storage, and where there is none a name is refused", async (t) => {
  const { url, retinker, service } = await opened(t);
  const refused = service.createRecoveringTrainingClient({ ...ADAPTER, log: "mine" });
  await assert.rejects(refused, (error) => error instanceof retinker.ConfigError && /no browser's storage here/.test(error.message));
  const open = await pages(t, url);
  const page = await open();
  const names = await page.evaluate(async () => {
    const client = await open_(undefined);
    await trainOn(client, 0, 1);
    return retinker.listRedoLogs();
  });
  assert.deepEqual(names, []);
});
